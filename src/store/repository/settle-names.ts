/**
 * Makes the names durable that a former life has left: a process may have been killed between a rename and
 * the sync of the folder. Whoever finds such a name takes the object for stored, and would let go what it
 * stands for, or name it in another object; a power cut could then take it back.
 */
import type { Core } from '../core.ts';

type NameCore = Pick<Core, 'disk' | 'paths'>;

/** Once, when a data directory is opened, before anything relies on what is there. */
export async function settleNames(core: NameCore): Promise<void> {
  const { root, journal, open, repo, packs, deltas, bases, index, points } = core.paths;
  const { condemned, holds, policies, keys } = core.paths;
  for (const folder of [root, journal, open, repo, index, condemned, holds]) {
    await core.disk.syncDirectory(folder);
  }
  // What is sealed with a key that is lost is lost.
  if (await core.disk.exists(keys)) await core.disk.syncDirectory(keys);
  for (const folder of [packs, points, policies]) await settleBelow(core, folder, 1);
  // Server, volume, generation.
  for (const folder of [deltas, bases]) await settleBelow(core, folder, 3);
}

/** A folder and the folders in it, so many levels down. */
async function settleBelow(core: NameCore, folder: string, levels: number): Promise<void> {
  await core.disk.syncDirectory(folder);
  if (levels === 0) return;
  for (const { name, isDirectory } of await core.disk.list(folder)) {
    if (isDirectory) await settleBelow(core, `${folder}/${name}`, levels - 1);
  }
}
