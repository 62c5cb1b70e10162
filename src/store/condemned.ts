/**
 * Condemned packs: nothing new may refer to them, and they are deleted only after a grace and a second
 * look. The mark is an object of its own, so that the verdict outlives a restart.
 */

import { type Core, temporaryPath } from './core.ts';
import { writeObject } from './object-file.ts';
import { encodeHeader, openHeader } from './object-header.ts';

const MAGIC = 'US-CONDM';

const encodeMark = (timeMs: number): Uint8Array =>
  encodeHeader(MAGIC, (writer) => writer.u64(timeMs));

/** Since when each pack is condemned, by its id. */
export async function readCondemned(
  core: Pick<Core, 'disk' | 'paths'>,
): Promise<Map<string, number>> {
  const marks = new Map<string, number>();
  for (const { name } of await core.disk.list(core.paths.condemned)) {
    const match = /^([0-9a-f]{32})\.condemned$/.exec(name);
    if (match === null) continue;
    const path = core.paths.condemnedMark(match[1]!);
    const { fields } = openHeader(await core.disk.readFile(path), MAGIC, path);
    marks.set(match[1]!, fields.u64());
  }
  return marks;
}

/** Durable once it resolves. */
export async function condemn(core: Core, id: string): Promise<void> {
  const path = core.paths.condemnedMark(id);
  const info = core.packs.byId(id);
  // At once: nothing may refer to the pack while the mark is being written.
  if (info !== null) core.packs.update(info.number, { isCondemned: true });
  try {
    await writeObject(core.disk, temporaryPath(core), path, [encodeMark(core.clock.wallMs())]);
  } catch (error) {
    if (info !== null) core.packs.update(info.number, { isCondemned: false });
    throw error;
  }
}

export async function pardon(core: Core, id: string): Promise<void> {
  await core.disk.remove(core.paths.condemnedMark(id));
  await core.disk.syncDirectory(core.paths.condemned);
  const info = core.packs.byId(id);
  if (info !== null) core.packs.update(info.number, { isCondemned: false });
}

/** At opening, before packs are loaded: what was condemned stays so. */
export async function loadCondemned(core: Pick<Core, 'disk' | 'paths' | 'packs'>): Promise<void> {
  for (const id of (await readCondemned(core)).keys()) core.packs.condemned.add(id);
}
