/** Zeros of a point that are never copied: found in whole clusters, and marked in a real overlay. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { type Hole, holesOf, markHoles } from '../../src/recovery/qemu/holes.ts';
import type { ImageReader } from '../../src/store/types.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** An image with data at these places. */
const imageOf = (sizeBytes: number, data: readonly Hole[]): ImageReader => ({
  ...{ sizeBytes, etag: 'x', close: () => undefined },
  read: () => Promise.reject(new Error('nothing is read')),
  async nextData(at) {
    const next = data.find(({ offset, length }) => offset + length > at);
    if (next === undefined) return null;
    const offset = Math.max(at, next.offset);
    return { offset, length: next.offset + next.length - offset };
  },
});

it('are found between the data, inwards to whole clusters, and no longer than a request', async () => {
  const data = [
    { offset: 0, length: 100 },
    { offset: 8 * MIB + 1, length: 4096 },
    { offset: 9 * MIB, length: 65_536 },
    { offset: 4 * GIB, length: MIB },
  ];
  const holes = await holesOf(imageOf(4 * GIB + 3 * MIB, data), systemClock);
  const start = 9 * MIB + 65_536;
  expect(holes).toEqual([
    { offset: 65_536, length: 8 * MIB - 65_536 },
    ...[0, 1, 2].map((index) => ({ offset: start + index * GIB, length: GIB })),
    { offset: start + 3 * GIB, length: GIB - start },
  ]);
});

it('of nothing but zeros are all of it, but for what is no whole cluster', async () => {
  expect(await holesOf(imageOf(8 * MIB + 512, []), systemClock)).toEqual([
    { offset: 0, length: 8 * MIB },
  ]);
});

it('are not looked for without end', async () => {
  const data = Array.from({ length: 1000 }, (_, index) => ({
    ...{ offset: index * 8 * MIB, length: 4096 },
  }));
  let nowMs = 0;
  const clock = {
    ...systemClock,
    monotonicMs: () => {
      nowMs += 1000;
      return nowMs;
    },
  };
  expect(await holesOf(imageOf(8000 * MIB, data), clock)).toHaveLength(1);
});

it('are zeros in the overlay, which stays small', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'uholes-'));
  try {
    const path = join(folder, 'disk.qcow2');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(4 * GIB)]);
    const holes = [
      { offset: 65_536, length: 2 * GIB - 65_536 - MIB },
      { offset: 2 * GIB, length: GIB },
    ].flatMap(({ offset, length }) => [
      { offset, length: length / 2 },
      { offset: offset + length / 2, length: length / 2 },
    ]);
    await markHoles(path, holes);
    const words = ['map', '--output=json', '-f', 'qcow2', path];
    const map = JSON.parse(execFileSync('qemu-img', words, { encoding: 'utf8' })) as {
      start: number;
      length: number;
      present: boolean;
    }[];
    const marked = map.filter(({ present }) => present);
    expect(marked).toMatchObject([
      { start: 65_536, length: 2 * GIB - 65_536 - MIB, zero: true, data: false },
      { start: 2 * GIB, length: GIB, zero: true, data: false },
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
