/**
 * The part of a check that looks at the catalog of a data directory: is it of this repository, does it
 * know every sealed point, and none that is gone? It is an index and hurts nothing: the next start makes
 * it right, `repo rebuild-catalog` makes it anew. But a point that only the catalog knows was lost, or
 * dropped just before a power cut; nothing else would tell of it.
 *
 * Works on a copy: the catalog's lock is the lock of the directory, and a reader changes nothing. Beside a
 * running service the two are never read at one instant: what is told is what three looks have found.
 */
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Disk } from '../../base/disk.ts';
import { CatalogClient } from '../catalog/catalog-client.ts';
import type { Paths } from '../format/layout.ts';
import { listPoints, readFormat } from '../repository/repository.ts';
import type { Finding } from '../types.ts';

const LOOKS = 3;

interface CatalogCheck {
  readonly disk: Disk;
  readonly paths: Paths;
}

/** No findings where there is no catalog. */
export async function checkCatalog(core: CatalogCheck): Promise<Finding[]> {
  const path = `${core.paths.root}/catalog.sqlite`;
  if (!(await core.disk.exists(path))) return [];
  let told: string | null = null;
  for (let look = 1; look <= LOOKS; look += 1) {
    const found = (await compare(core, path)).join('; ');
    if (found === '' || (told !== null && told !== found)) return [];
    told = found;
  }
  return [{ kind: 'stale-catalog', object: path, detail: told ?? '', points: [] }];
}

/** What does not fit, in words. */
async function compare(core: CatalogCheck, path: string): Promise<string[]> {
  const copy = await readCopy(path);
  if (copy === null) return ['it cannot be read'];
  const id = await readFormat(core.disk, core.paths);
  if (copy.repository !== id) return ['it is of another repository'];
  const there = new Set<string>();
  for await (const point of listPoints(core)) there.add(point.id);
  const known = new Set(copy.points.map((point) => point.id));
  const sealed = copy.points.filter(({ state }) => state === 'sealed');
  const gone = sealed.filter((point) => !there.has(point.id)).map((point) => point.id);
  const unknown = [...there].filter((point) => !known.has(point));
  const faults: string[] = [];
  if (gone.length > 0) faults.push(`it knows points that are gone: ${some(gone)}`);
  if (unknown.length > 0) faults.push(`it does not know ${some(unknown)}`);
  return faults;
}

const some = (ids: readonly string[]): string =>
  ids.length <= 3 ? ids.join(', ') : `${ids.slice(0, 3).join(', ')} and ${ids.length - 3} more`;

type Names = Awaited<ReturnType<CatalogClient['pointNames']>>;

/** Null where the file is no catalog. */
async function readCopy(path: string): Promise<{ repository: string; points: Names } | null> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-catalog-'));
  try {
    for (const suffix of ['', '-wal']) {
      await copyFile(path + suffix, join(folder, `c${suffix}`)).catch((error: unknown) => {
        if (suffix === '') throw error; // the log is there while changes are not merged yet
      });
    }
    const catalog = new CatalogClient(join(folder, 'c'));
    const repository = await catalog.open();
    const points = await catalog.pointNames();
    await catalog.close();
    return repository === null ? null : { repository, points };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
