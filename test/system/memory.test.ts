/** P5: what replication costs the source and staging: bounded memory whatever the disk's size. */
import { randomFillSync } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { describe, expect, it } from 'vitest';
import { startS3 } from '../tools/s3-server.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
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

interface Made {
  readonly volume: string;
  readonly staging: Staging;
  readonly point: string;
}

interface World {
  readonly scratch: Scratch;
  readonly dataBytes: number;
  /** Of staging. */
  readonly words: readonly string[];
}

/** A sparse 2 TiB volume becomes a point. Peaks of agent and staging until then, in MiB. */
async function replicated({ scratch, dataBytes, words }: World) {
  const volume = scratch.path('sparse');
  makeSparseFile(volume, 2 * TIB, dataBytes);
  const staging = await Staging.start(scratch, { words });
  const agent = startAgent(scratch, staging, { volumes: [volume], cutInterval: '5s' });
  await staging.waitForPoints(1, 540_000);
  const used = { agent: agent.peakMemoryBytes() / MIB, staging: peakOf(staging) };
  console.log(`peak memory in MiB: ${JSON.stringify(used)}`);
  const point = (await staging.points())[0]!;
  expect(point.volumes[0]!.sizeBytes).toBe(2 * TIB);
  return { volume, staging, point: point.id, used };
}

const peakOf = (staging: Staging): number => staging.daemon.peakMemoryBytes() / MIB;

/** Pieces of the image over HTTP, several at a time, each compared with the volume. */
async function readPieces({ staging, volume, point }: Made, dataBytes: number, count: number) {
  const token = readFileSync(staging.tokenFile, 'utf8').trim();
  const url = `${staging.url}/v1/points/${point}/volumes/${encodeURIComponent(volume)}/image`;
  const fd = openSync(volume, 'r');
  let next = 0;
  const reader = async () => {
    for (let at = next++; at < count; at = next++) {
      const from = placeOf(at, 2 * TIB, dataBytes);
      const range = `bytes=${from}-${from + PIECE_BYTES - 1}`;
      const answer = await fetch(url, { headers: { authorization: `Bearer ${token}`, range } });
      const expected = Buffer.alloc(PIECE_BYTES);
      readSync(fd, expected, 0, PIECE_BYTES, from);
      expect(expected.equals(Buffer.from(await answer.arrayBuffer()))).toBe(true);
    }
  };
  await Promise.all(Array.from({ length: 4 }, reader));
  closeSync(fd);
}

describe('memory', () => {
  const dataBytes = scaled(1, 10) * GIB;
  const bucketBytes = scaled(512, 1024) * MIB;

  it(`of agent and staging stays below 200 MiB over a sparse 2 TiB volume with ${dataBytes / GIB} GiB`, async () => {
    await withScratch('memory', async (scratch) => {
      const made = await replicated({ scratch, dataBytes, words: [] });
      expect(made.used.agent).toBeLessThan(200);
      expect(made.used.staging).toBeLessThan(200);
      const image = scratch.path('image');
      await made.staging.export(made.point, made.volume, image);
      expect(differingPieces(made.volume, image, dataBytes)).toEqual([]);
      console.log(`staging after an export: ${peakOf(made.staging)} MiB`);
    });
  });

  it('of staging stays below 248 MiB with a repository in a bucket', async () => {
    const server = await startS3();
    try {
      await withScratch('memory-bucket', async (scratch) => {
        const repo = `s3://${await server.makeBucket()}/memory`;
        const words = ['--repo', repo, '--s3-endpoint', server.endpoint];
        const made = await replicated({ scratch, dataBytes: bucketBytes, words });
        // The SDK, parts of packs on their way, and what is read ahead and kept.
        expect(made.used.staging).toBeLessThan(248);
        await readPieces(made, bucketBytes, 48);
        console.log(`staging after reading an image: ${peakOf(made.staging)} MiB`);
      });
    } finally {
      await server.stop();
    }
  });
});
