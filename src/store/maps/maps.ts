/**
 * Opens maps of the repository and believes them only where they have their own names: an object that was
 * moved or put in the place of another is damage, wherever it is read.
 */

import type { Core } from '../core.ts';
import { damaged } from '../format/object-header.ts';
import { LeafFile } from '../leaves/leaf-file.ts';
import { Base } from './base.ts';

/** ERR_OBJECT_DAMAGED where what an object says of itself gives another name than it has. */
export function expectName(path: string, own: string): void {
  if (path !== own) throw damaged(path, 'the object of another name');
}

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function openDelta(
  core: Pick<Core, 'files' | 'paths'>,
  path: string,
): Promise<LeafFile> {
  const file = await LeafFile.open(core.files, path, 'US-DELTA');
  expectName(path, core.paths.delta(file.info, file.info.from, file.info.to));
  return file;
}

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function openBase(
  core: Pick<Core, 'disk' | 'paths' | 'reader'>,
  path: string,
): Promise<Base> {
  const base = await Base.open(core, path);
  expectName(path, core.paths.base(base.info, base.info.epoch));
  return base;
}
