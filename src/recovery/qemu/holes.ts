/**
 * The long stretches of zeros of a point, marked as such in a new overlay before the machine starts: nothing
 * of them is ever read through the image server, neither by the guest nor by the background copy. To look
 * for them is given little time, for the machine is waited for; what was not found is copied as all else.
 */
import type { Clock } from '../../base/clock.ts';
import { GIB, MIB } from '../../base/units.ts';
import type { ImageReader } from '../../store/types.ts';
import { isLoss } from '../damage.ts';
import { runProgram } from './programs.ts';

export interface Hole {
  readonly offset: number;
  readonly length: number;
}

/** qcow2's, as qemu-img makes it. */
const CLUSTER_BYTES = 65_536;
/** Shorter ones cost more than they save. */
const LEAST_BYTES = 4 * MIB;
/** QEMU's limit for one request is a little below 2 GiB. */
const MOST_BYTES = GIB;
const LIMIT_MS = 3000;
/** Of one command line. */
const BATCH = 500;

/** In order, whole clusters, no longer than one request may be. */
export async function holesOf(image: ImageReader, clock: Clock): Promise<Hole[]> {
  const endMs = clock.monotonicMs() + LIMIT_MS;
  const holes: Hole[] = [];
  for (let at = 0; at < image.sizeBytes && clock.monotonicMs() < endMs; ) {
    // Where the map itself is damaged nothing is known to be zero: it is read, and that tells.
    const data = await image.nextData(at).catch((error: unknown) => {
      if (isLoss(error)) return undefined;
      throw error;
    });
    if (data === undefined) break;
    addHole(holes, at, data?.offset ?? image.sizeBytes);
    if (data === null) break;
    at = data.offset + data.length;
  }
  return holes;
}

function addHole(holes: Hole[], from: number, to: number): void {
  const start = Math.ceil(from / CLUSTER_BYTES) * CLUSTER_BYTES;
  const end = Math.floor(to / CLUSTER_BYTES) * CLUSTER_BYTES;
  if (end - start < LEAST_BYTES) return;
  for (let offset = start; offset < end; offset += MOST_BYTES) {
    holes.push({ offset, length: Math.min(MOST_BYTES, end - offset) });
  }
}

/** `overlayPath`: a new one, without a backing file. ERR_LAUNCH_FAILED, ERR_LAUNCH_PROGRAM. */
export async function markHoles(overlayPath: string, holes: readonly Hole[]): Promise<void> {
  for (let first = 0; first < holes.length; first += BATCH) {
    const commands = holes
      .slice(first, first + BATCH)
      .flatMap(({ offset, length }) => ['-c', `write -z -q ${offset} ${length}`]);
    await runProgram('qemu-io', ['-f', 'qcow2', ...commands, overlayPath]);
  }
}
