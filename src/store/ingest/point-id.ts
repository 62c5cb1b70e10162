/**
 * The id of a point that is being committed: its time and 32 bits of chance. Where hundreds of servers cut every
 * few seconds many points share their millisecond, so chance alone would give an id twice some day; and then one
 * of the two points would stand for both. So an id that a point has, or is about to get, is drawn again.
 */
import type { Core } from '../core.ts';
import { toHex } from '../format/checksum.ts';

const SUFFIX_BYTES = 4;

/** Runs `use` with an id that no point has or gets meanwhile. `timeMs`: of the cut, ms since 1970. */
export async function withPointId<T>(
  core: Core,
  timeMs: number,
  use: (id: string) => Promise<T>,
): Promise<T> {
  const id = await claimId(core, timeMs);
  try {
    return await use(id);
  } finally {
    core.claimedIds.delete(id);
  }
}

async function claimId(core: Core, timeMs: number): Promise<string> {
  const time = new Date(timeMs).toISOString().replaceAll(/[-:]/g, '');
  for (;;) {
    const id = `${time}-${toHex(core.randomBytes(SUFFIX_BYTES))}`;
    if (core.claimedIds.has(id)) continue;
    core.claimedIds.add(id);
    let isFree = false;
    try {
      isFree = !core.staged.has(id) && (await core.catalog.point(id)) === null;
    } finally {
      if (!isFree) core.claimedIds.delete(id);
    }
    if (isFree) return id;
  }
}
