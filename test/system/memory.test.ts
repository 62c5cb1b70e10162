/** P5: what replication costs the source and staging: bounded memory whatever the disk's size. */
import { randomFillSync } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { scaled } from './helpers/wait.ts';

const MIB = 1 << 20;
const GIB = 1 << 30;
const TIB = 1024 * GIB;

const PIECE_BYTES = 4 * MIB;
const placeOf = (at: number, sizeBytes: number, dataBytes: number): number =>
  at * Math.floor((sizeBytes * PIECE_BYTES) / dataBytes / 4096) * 4096;

/** A sparse file with `dataBytes` of random data, spread in pieces over its whole length. */
function makeSparseFile(path: string, sizeBytes: number, dataBytes: number): void {
  const fd = openSync(path, 'wx');
  ftruncateSync(fd, sizeBytes);
  const piece = Buffer.alloc(PIECE_BYTES);
  for (let at = 0; at < dataBytes / PIECE_BYTES; at += 1) {
    writeSync(fd, randomFillSync(piece), 0, piece.length, placeOf(at, sizeBytes, dataBytes));
  }
  closeSync(fd);
}

/** Numbers of the pieces that two such files do not have alike. */
function differingPieces(one: string, other: string, dataBytes: number): number[] {
  const fds = [openSync(one, 'r'), openSync(other, 'r')];
  const sizeBytes = fstatSync(fds[0]!).size;
  const differing: number[] = [];
  for (let at = 0; at < dataBytes / PIECE_BYTES; at += 1) {
    const [left, right] = fds.map((fd) => {
      const piece = Buffer.alloc(PIECE_BYTES);
      readSync(fd, piece, 0, PIECE_BYTES, placeOf(at, sizeBytes, dataBytes));
      return piece;
    });
    if (!left!.equals(right!)) differing.push(at);
  }
  for (const fd of fds) closeSync(fd);
  return differing;
}

describe('memory', () => {
  const dataBytes = scaled(1, 10) * GIB;

  it(`of agent and staging stays below 200 MiB over a sparse 2 TiB volume with ${dataBytes / GIB} GiB`, async () => {
    await withScratch('memory', async (scratch) => {
      const volume = scratch.path('sparse');
      makeSparseFile(volume, 2 * TIB, dataBytes);
      const staging = await Staging.start(scratch);
      const agent = startAgent(scratch, staging, { volumes: [volume], cutInterval: '5s' });
      await staging.waitForPoints(1, 540_000);
      const used = {
        agent: agent.peakMemoryBytes() / MIB,
        staging: staging.daemon.peakMemoryBytes() / MIB,
      };
      console.log(`peak memory in MiB: agent ${used.agent}, staging ${used.staging}`);
      expect(used.agent).toBeLessThan(200);
      expect(used.staging).toBeLessThan(200);
      const point = (await staging.points())[0]!;
      expect(point.volumes[0]!.sizeBytes).toBe(2 * TIB);
      const image = scratch.path('image');
      await staging.export(point.id, volume, image);
      expect(differingPieces(volume, image, dataBytes)).toEqual([]);
      console.log(`staging after an export: ${staging.daemon.peakMemoryBytes() / MIB} MiB`);
    });
  });
});
