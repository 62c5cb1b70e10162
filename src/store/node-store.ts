/** The store in the real world: real files, the system's clock and chance, the catalog in SQLite. */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { CatalogClient } from './catalog-client.ts';
import type { StoreSettings } from './core.ts';
import { openStore } from './open-store.ts';
import type { Store } from './types.ts';

/** Opens or makes the data directory `data`. ERR_DATA_IN_USE, ERR_DATA_FORMAT, ERR_JOURNAL_DAMAGED. */
export async function openNodeStore(
  data: string,
  log: Log,
  settings: Partial<StoreSettings> = {},
): Promise<Store> {
  const root = resolve(data);
  await nodeDisk.makeDirectory(root);
  return openStore({
    disk: nodeDisk,
    clock: systemClock,
    randomBytes: (count) => new Uint8Array(randomBytes(count)),
    root,
    catalog: new CatalogClient(`${root}/catalog.sqlite`),
    log,
    settings,
  });
}
