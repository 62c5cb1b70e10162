/** The store in the real world: real files, the system's clock and chance, the catalog in SQLite. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { CatalogClient } from './catalog/catalog-client.ts';
import type { StoreSettings } from './core.ts';
import { toHex } from './format/checksum.ts';
import type { KeyOptions } from './keys/open-vault.ts';
import { openStore } from './open-store.ts';
import type { Place } from './place.ts';
import type { OpeningTold } from './repository/repository.ts';
import type { Store } from './types.ts';

const random = (count: number): Uint8Array => new Uint8Array(randomBytes(count));

interface NodeStoreOptions {
  readonly settings?: Partial<StoreSettings>;
  /** Where the repository is; without it, in the data directory. The caller closes it after the store. */
  readonly place?: Place;
  /** Makes a new journal where there is a repository and its journal is lost. */
  readonly adopt?: boolean;
  /** Goes on with a repository that lacks points which were sealed in it. */
  readonly acceptRollback?: boolean;
  /** Told what is read meanwhile. */
  readonly onOpening?: OpeningTold | undefined;
  /** Opens an encrypted repository, and makes a new one encrypted. */
  readonly keys?: KeyOptions;
}

/**
 * Opens or makes the data directory `data`. ERR_DATA_IN_USE, ERR_DATA_FORMAT, ERR_JOURNAL_DAMAGED; of a
 * repository elsewhere ERR_REPOSITORY_IN_USE and ERR_OBJECTS_*.
 */
export async function openNodeStore(
  data: string,
  log: Log,
  {
    settings = {},
    place,
    adopt = false,
    acceptRollback = false,
    keys,
    onOpening,
  }: NodeStoreOptions = {},
): Promise<Store> {
  const root = resolve(data);
  await nodeDisk.makeDirectory(root);
  if (!(await nodeDisk.exists(`${root}/.`))) {
    throw new UnderstudyError('ERR_DISK_EXISTS', `${root}: this is no directory`, { path: root });
  }
  const isElsewhere = place !== undefined && place.objects !== null;
  return openStore({
    disk: place?.disk ?? nodeDisk,
    clock: systemClock,
    randomBytes: random,
    root,
    catalog: new CatalogClient(`${root}/catalog.sqlite`),
    ...{ log, settings, adopt, acceptRollback, onOpening },
    ...(keys !== undefined && { keys }),
    ...(place !== undefined && { repo: place.repo, onAlone: place.alone }),
    // The lock of the catalog keeps others from the data directory, and from nothing else.
    ...(isElsewhere && { leaseBy: { holder: toHex(random(16)), host: hostname() } }),
  });
}
