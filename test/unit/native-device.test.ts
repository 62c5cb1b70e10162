// The device and the engine's reads over regular files: what any machine can run.

import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { alignedBuffer, createEngine, openDevice, openTracker } from '../../src/native/index.ts';
import type { FilledBuffer, PassResult, ReadFault } from '../../src/native/types.ts';

const MIB = 1024 * 1024;
let directory: string;
const inDirectory = (name: string) => join(directory, name);

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'understudy-native-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function randomFile(name: string, bytes: number): { path: string; content: Uint8Array } {
  const content = randomFillSync(new Uint8Array(bytes));
  const path = inDirectory(name);
  writeFileSync(path, content);
  return { path, content };
}

/** Runs one `read` job and puts what was handed over together. */
async function readByEngine(
  path: string,
  sizeBytes: number,
  extents: { offset: number; length: number }[],
): Promise<{ image: Uint8Array; result: PassResult; faults: ReadFault[]; buffers: number }> {
  const image = new Uint8Array(sizeBytes);
  const memory = [alignedBuffer(MIB), alignedBuffer(MIB), alignedBuffer(MIB)];
  const device = openDevice(path);
  const volumes = [{ path, geometry: device.geometry }];
  const tracker = await openTracker({ backend: 'scan', volumes });
  let buffers = 0;
  const ended = Promise.withResolvers<{ result: PassResult; faults: ReadFault[] }>();
  const engine = createEngine({
    tracker,
    buffers: memory,
    events: {
      onFilled(filled: FilledBuffer) {
        buffers += 1;
        const bytes = memory[filled.buffer]!;
        for (const { offset, length, at } of filled.pieces) {
          image.set(bytes.subarray(at, at + length), offset);
        }
        setImmediate(() => engine.release(filled.buffer));
      },
      onDone: (result, faults) => ended.resolve({ result, faults }),
    },
  });
  engine.read(7, 0, extents);
  const { result, faults } = await ended.promise;
  await engine.close();
  device.close();
  return { image, result, faults, buffers };
}

describe('device', () => {
  it('tells the geometry of a regular file and reads it to its odd end', async () => {
    const { path, content } = randomFile('odd', 3 * MIB + 777);
    const device = openDevice(path);
    expect(device.geometry).toMatchObject({ kind: 'file', sizeBytes: content.length });
    const buffer = alignedBuffer(4 * MIB);
    const count = await device.read(buffer, 0);
    expect(count).toBe(content.length);
    expect(Buffer.compare(buffer.subarray(0, count), content)).toBe(0);
    device.close();
  });

  it('finds the data of a sparse file', async () => {
    const path = inDirectory('sparse');
    writeFileSync(path, 'x');
    truncateSync(path, 64 * MIB);
    const device = openDevice(path);
    expect(await device.nextData(0)).toEqual({ offset: 0, length: 4096 });
    expect(await device.nextData(4096)).toBeNull();
    device.close();
  });

  it('refuses what is no volume, with a code, errno and path', () => {
    const codes = (path: string) => {
      try {
        openDevice(path);
      } catch (error) {
        return { ...(error as object) };
      }
      return {};
    };
    expect(codes('/nonexistent')).toMatchObject({
      code: 'ERR_DEVICE_OPEN',
      context: { errno: 'ENOENT', path: '/nonexistent', syscall: 'stat' },
    });
    expect(codes(directory)).toMatchObject({ code: 'ERR_DEVICE_NOT_VOLUME' });
    expect(codes('/dev/null')).toMatchObject({ code: 'ERR_DEVICE_NOT_VOLUME' });
  });

  it('refuses use after close, offsets that are no whole numbers, and other arrays', async () => {
    const { path } = randomFile('misuse', 8192);
    const device = openDevice(path);
    const buffer = alignedBuffer(4096);
    await expect(device.read(buffer, -1)).rejects.toThrow('whole number');
    await expect(device.read(buffer, Number.NaN)).rejects.toThrow('whole number');
    await expect(device.read(new Float64Array(4) as never, 0)).rejects.toThrow('Uint8Array');
    const late = device.read(buffer, 0);
    device.close();
    expect(await late).toBe(4096);
    await expect(device.read(buffer, 0)).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
  });
});

describe('engine, reading', () => {
  it('hands over a whole file in order through few buffers, odd tail included', async () => {
    const { path, content } = randomFile('whole', 9 * MIB + 12345);
    const whole = [{ offset: 0, length: content.length }];
    const read = await readByEngine(path, content.length, whole);
    expect(read.faults).toEqual([]);
    expect(read.result).toMatchObject({ job: 7, outcome: 'drained' });
    expect(read.buffers).toBeGreaterThan(3);
    expect(Buffer.compare(read.image, content)).toBe(0);
  });

  it('reports what it cannot read as a fault and goes on', async () => {
    const { path, content } = randomFile('fault', 2 * MIB);
    const read = await readByEngine(path, content.length, [
      { offset: 4 * MIB, length: 4096 },
      { offset: MIB, length: 8192 },
    ]);
    expect(read.faults).toMatchObject([{ volume: 0, offset: 4 * MIB, errno: 'ENODATA' }]);
    expect(read.image.subarray(MIB, MIB + 8192)).toEqual(content.subarray(MIB, MIB + 8192));
  });

  it('ends while a job waits for buffers', async () => {
    const { path, content } = randomFile('stuck', 8 * MIB);
    const device = openDevice(path);
    const volumes = [{ path, geometry: device.geometry }];
    const tracker = await openTracker({ backend: 'scan', volumes });
    const filled = Promise.withResolvers<void>();
    const engine = createEngine({
      tracker,
      buffers: [alignedBuffer(MIB), alignedBuffer(MIB)],
      events: { onFilled: () => filled.resolve(), onDone: () => undefined },
    });
    engine.read(1, 0, [{ offset: 0, length: content.length }]);
    await filled.promise;
    await engine.close();
    expect(() => engine.read(2, 0, [])).toThrow(
      expect.objectContaining({ code: 'ERR_ENGINE_CLOSED' }),
    );
    device.close();
  });
});
