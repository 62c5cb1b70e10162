/** Catalogs beside fixtures: one that is right, one that is behind, one of another repository. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SqliteCatalog } from '../../src/store/catalog/catalog-sqlite.ts';
import { decodePointObject } from '../../src/store/points/point-format.ts';

export function fillCatalog(folder: string, how: 'all' | 'older' | 'foreign'): void {
  const points = join(folder, 'repo/points/web');
  const records = readdirSync(points)
    .sort()
    .map((name) => decodePointObject(readFileSync(join(points, name)), name));
  const format = JSON.parse(readFileSync(join(folder, 'repo/format.json'), 'utf8')) as {
    id: string;
  };
  const catalog = SqliteCatalog.open(join(folder, 'catalog.sqlite'));
  catalog.adopt(how === 'foreign' ? 'f0'.repeat(16) : format.id);
  for (const record of how === 'older' ? records.slice(0, 2) : records) {
    catalog.putPoint(record, 'sealed');
  }
  catalog.close();
}
