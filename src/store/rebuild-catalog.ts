/**
 * Makes the catalog of a data directory anew, from repository and journal, as a start without a catalog
 * does. The service must be stopped: the old catalog's lock is taken first. What only the old catalog knew
 * is told, not kept: a point that neither repository nor journal has cannot be restored.
 */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { CatalogClient } from './catalog/catalog-client.ts';
import { readFormatObject } from './format/format.ts';
import { paths as pathsOf } from './format/layout.ts';
import { type KeyOptions, openVault } from './keys/open-vault.ts';
import { openNodeStore } from './node-store.ts';
import type { Place } from './place.ts';

export interface RebuiltCatalog {
  readonly points: number;
  readonly servers: number;
  readonly volumes: number;
  /** Ids that the old catalog had, and repository and journal have not. */
  readonly forgotten: readonly string[];
  /** How many points the old catalog did not have. */
  readonly found: number;
}

/**
 * `data`: a data directory; `place`: its repository, where that lies elsewhere. ERR_DATA_IN_USE while a
 * service runs, ERR_DATA_FORMAT where it is none, and what keeps a service from starting
 * (ERR_JOURNAL_DAMAGED, ..). Begun again after a crash it does the same.
 */
export async function rebuildCatalog(
  data: string,
  log: Log,
  place?: Place,
  keys?: KeyOptions,
): Promise<RebuiltCatalog> {
  const root = resolve(data);
  const path = `${root}/catalog.sqlite`;
  const paths = pathsOf(root, place?.repo);
  const disk = place?.disk ?? nodeDisk;
  const format = await readFormatObject(disk, paths);
  if (format === null) {
    const message = `${root}: not a data directory of this repository (no ${paths.format})`;
    throw new UnderstudyError('ERR_DATA_FORMAT', message, { path: root });
  }
  // A wrong key is told before the old catalog goes.
  const random = (count: number) => new Uint8Array(randomBytes(count));
  await openVault({ disk, paths, randomBytes: random, nowMs: systemClock.wallMs() }, format, keys);
  const before = await removeCatalog(path);
  const options = { ...(place && { place }), ...(keys && { keys }) };
  const store = await openNodeStore(root, log, options);
  try {
    const ids = (await store.points({})).map(({ id }) => id);
    const servers = await store.servers();
    const now = new Set(ids);
    return {
      points: ids.length,
      servers: servers.length,
      volumes: servers.reduce((sum, { volumes }) => sum + volumes.length, 0),
      forgotten: [...before].filter((id) => !now.has(id)).sort(),
      found: ids.filter((id) => !before.has(id)).length,
    };
  } finally {
    await store.close();
  }
}

/** Removes the catalog while its lock is held; returns the ids of its points. */
async function removeCatalog(path: string): Promise<Set<string>> {
  const catalog = new CatalogClient(path);
  const repository = await catalog.open();
  const names = repository === null ? [] : await catalog.pointNames();
  for (const suffix of ['', '-wal', '-shm', '-journal']) {
    if (await nodeDisk.exists(path + suffix)) await nodeDisk.remove(path + suffix);
  }
  await catalog.close();
  return new Set(names.map(({ id }) => id));
}
