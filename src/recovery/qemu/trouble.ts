/**
 * A running machine that is paused by its disk: QEMU stops the guest where a write finds no room, so that the
 * guest never sees it; the background copy stops in the same way. Both go on by themselves when there is room
 * again, and until then the job says so. A write of a part of a block whose rest is damaged at the point pauses
 * the guest, too, until the point is mended: it can neither be kept nor be lost.
 */
import { statfs } from 'node:fs/promises';
import { diskError } from '../../base/node-disk.ts';
import { formatSize, MIB } from '../../base/units.ts';
import type { CopyState } from './background-copy.ts';
import type { Qmp } from './qmp.ts';

/** With less than this nothing is tried again. */
const ROOM_BYTES = 64 * MIB;

/** Null: all is well. Else what to tell; where there is hope again it was told to go on. */
export async function lookForTrouble(
  qmp: Qmp,
  copy: CopyState | null,
  folder: string,
  isDamaged: boolean,
): Promise<string | null> {
  const { status } = await qmp.run<{ status: string }>('query-status');
  const isGuestPaused = status === 'io-error';
  const isCopyPaused = copy?.kind === 'paused';
  if (!isGuestPaused && !isCopyPaused) return null;
  const isFull = isCopyPaused ? copy.isFull : await hasNoSpace(qmp);
  const freeBytes = await freeBytesOf(folder);
  if (!isFull || freeBytes >= ROOM_BYTES) {
    if (isCopyPaused) await copy.resume(qmp);
    if (isGuestPaused) await qmp.run('cont');
  }
  const who = isGuestPaused ? 'the guest is paused' : 'the copy is paused, the guest runs';
  const why = isFull
    ? `no room in ${folder} (${formatSize(freeBytes)} free)`
    : isDamaged
      ? 'it writes to a part of a block that is damaged at the point (repo repair may mend it)'
      : 'an error of a disk';
  return `${who}: ${why}; it goes on by itself`;
}

async function hasNoSpace(qmp: Qmp): Promise<boolean> {
  const devices = await qmp.run<{ 'io-status'?: string }[]>('query-block');
  return devices.some((device) => device['io-status'] === 'nospace');
}

async function freeBytesOf(folder: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch (cause) {
    throw diskError(cause, folder);
  }
}
