/**
 * The part of a check that looks at the catalog of a data directory: is it of this repository, does it
 * know every sealed point, and none that is gone? It is an index and hurts nothing: the next start makes
 * it right, `repo rebuild-catalog` makes it anew. But a point that only the catalog knows was lost, or
 * dropped just before a power cut; nothing else would tell of it. The newest of a server is never dropped:
 * that one was lost, and a service refuses the repository (ERR_REPOSITORY_BEHIND).
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
import type { PointRecord } from '../points/point-format.ts';
import { listPoints, newestSealed, readFormat } from '../repository/repository.ts';
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
  let findings: Finding[] = [];
  let told: string | null = null;
  for (let look = 1; look <= LOOKS; look += 1) {
    const { faults, lost } = await compare(core, path);
    const detail = faults.join('; ');
    const found = JSON.stringify([detail, lost]);
    if (detail === '' || (told !== null && told !== found)) return [];
    told = found;
    findings = [{ kind: 'stale-catalog', object: path, detail, points: [] }, ...lost];
  }
  return findings;
}

/** What does not fit, in words; and the points that were lost. */
interface Compared {
  readonly faults: readonly string[];
  readonly lost: readonly Finding[];
}

async function compare(core: CatalogCheck, path: string): Promise<Compared> {
  const copy = await readCopy(path);
  if (copy === null) return { faults: ['it cannot be read'], lost: [] };
  const id = await readFormat(core.disk, core.paths);
  if (copy.repository !== id) return { faults: ['it is of another repository'], lost: [] };
  const there = new Set<string>();
  for await (const point of listPoints(core)) there.add(point.id);
  const known = new Set(copy.points.map((point) => point.id));
  const sealed = copy.points.filter(({ state }) => state === 'sealed');
  const gone = sealed.filter((point) => !there.has(point.id)).map((point) => point.id);
  const unknown = [...there].filter((point) => !known.has(point));
  const faults: string[] = [];
  if (gone.length > 0) faults.push(`it knows points that are gone: ${some(gone)}`);
  if (unknown.length > 0) faults.push(`it does not know ${some(unknown)}`);
  const isGone = (point: { readonly id: string }) => gone.includes(point.id);
  const lost = copy.newest.filter(isGone).map((point) => lostPoint(core, point));
  return { faults, lost };
}

const lostPoint = ({ paths }: CatalogCheck, { id, server }: Newest): Finding => ({
  kind: 'missing-object',
  object: paths.point(server, id),
  detail: `the newest point of ${server} is gone, which is never dropped: an older state of the repository?`,
  points: [id],
});

const some = (ids: readonly string[]): string =>
  ids.length <= 3 ? ids.join(', ') : `${ids.slice(0, 3).join(', ')} and ${ids.length - 3} more`;

type Newest = Pick<PointRecord, 'id' | 'server'>;
type Names = Awaited<ReturnType<CatalogClient['pointNames']>>;

interface CatalogCopy {
  readonly repository: string;
  readonly points: Names;
  readonly newest: readonly Newest[];
}

/** Null where the file is no catalog. */
async function readCopy(path: string): Promise<CatalogCopy | null> {
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
    const newest = await newestSealed(catalog);
    await catalog.close();
    return repository === null ? null : { repository, points, newest };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
