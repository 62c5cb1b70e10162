/**
 * A disk made equal to a point by writing what differs, and put back by what was kept: over a disk that
 * loses power, fills up and lies, ended at every call.
 */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Disk, DiskFile } from '../../src/base/disk.ts';
import { CHUNK_BYTES, chunkCount } from '../../src/model/geometry.ts';
import { ChunkSet } from '../../src/recovery/failback/chunk-set.ts';
import { putBack } from '../../src/recovery/failback/put-back.ts';
import { MARKS_BYTES } from '../../src/recovery/failback/put-back-mark.ts';
import { readUndoFile, UndoFile, type UndoTitle } from '../../src/recovery/failback/undo-file.ts';
import { type HomeSource, verifyHome, writeHome } from '../../src/recovery/failback/write-home.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk, PowerCut } from './support/faulty-disk.ts';

/** The last chunk is short; the target is larger. */
const SIZE = 9 * CHUNK_BYTES + 1536;
const TARGET_SIZE = SIZE + 3 * CHUNK_BYTES;
const CHUNKS = chunkCount(SIZE);
const DIFFERENT = [0, 3, 4, 8, CHUNKS - 1];
const title: UndoTitle = {
  ...{ server: 'web', volume: 'root', target: '/disk', sizeBytes: TARGET_SIZE, time: 'now' },
  cause: 'failback j1',
};
const live = new AbortController().signal;
const quiet = { stop: live, onProgress: () => undefined };
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

function contents() {
  const random = new Random(3);
  const old = Buffer.from(random.bytes(TARGET_SIZE));
  old.fill(0, CHUNK_BYTES, 2 * CHUNK_BYTES);
  old.fill(0, 3 * CHUNK_BYTES, 4 * CHUNK_BYTES);
  const image = Buffer.from(old.subarray(0, SIZE));
  for (const chunk of DIFFERENT) image[chunk * CHUNK_BYTES + 7]! ^= 0x55;
  image.fill(0, 8 * CHUNK_BYTES, 9 * CHUNK_BYTES);
  return { old, image };
}

function sourceOf(image: Buffer): HomeSource & { fetched: number; asked: number } {
  const source = {
    ...{ sizeBytes: image.length, fetched: 0, asked: 0 },
    async compare(first: number, digests: Uint8Array) {
      const count = digests.length / 32;
      source.asked += count;
      const different = new Uint8Array(Math.ceil(count / 8));
      const zero = new Uint8Array(different.length);
      let found = 0;
      for (let i = 0; i < count; i += 1) {
        const at = (first + i) * CHUNK_BYTES;
        const held = image.subarray(at, at + CHUNK_BYTES);
        if (sha256(held).equals(digests.subarray(32 * i, 32 * i + 32))) continue;
        found += 1;
        different[i >> 3]! |= 1 << (i & 7);
        if (held.every((byte) => byte === 0)) zero[i >> 3]! |= 1 << (i & 7);
      }
      return { different, zero, count: found };
    },
    async read(offset: number, length: number) {
      source.fetched += length;
      return new Uint8Array(image.subarray(offset, offset + length));
    },
  };
  return source;
}

async function put(disk: Disk, bytes: Uint8Array): Promise<void> {
  const file = await disk.open('/disk', 'write');
  await file.write([bytes], 0);
  await file.sync();
  await file.close();
  await disk.syncDirectory('/');
}

async function run(disk: Disk, source: HomeSource, isKept = true) {
  const undo = isKept ? await UndoFile.open(disk, '/undo', '/', title) : null;
  const target = await disk.open('/disk', 'write');
  const report = await writeHome(source, target, null, { undo, ...quiet });
  await verifyHome(source, target, null, quiet);
  await undo?.close();
  await target.close();
  return report;
}

async function undone(disk: Disk, isAgain = false, to = '/disk') {
  const undo = await readUndoFile(disk, '/undo');
  const target = await disk.open('/disk', 'write');
  const report = await putBack(undo, target, {
    ...{ to, isAgain, stop: live, now: () => 'then', onChunk: () => undefined },
  });
  await undo.close();
  await target.close();
  return report;
}

describe('a disk that is written home', () => {
  it('has only what differs written, and only what is not zero fetched', async () => {
    const { old, image } = contents();
    const disk = new FaultyDisk().mount();
    await put(disk, old);
    const source = sourceOf(image);
    const report = await run(disk, source);
    const written = (DIFFERENT.length - 1) * CHUNK_BYTES + 1536;
    expect(report).toEqual({
      ...{ chunks: CHUNKS, different: DIFFERENT.length, writtenBytes: written },
      fetchedBytes: written - CHUNK_BYTES,
    });
    expect(source.fetched).toBe(report.fetchedBytes);
    const after = Buffer.from(await disk.readFile('/disk'));
    expect(after.subarray(0, SIZE).equals(image)).toBe(true);
    expect(after.subarray(SIZE).equals(old.subarray(SIZE))).toBe(true);
    expect(await run(disk, source)).toMatchObject({ chunks: CHUNKS, different: 0 });
    expect(await undone(disk)).toMatchObject({ chunks: DIFFERENT.length, tornBytes: 0 });
    expect(Buffer.from(await disk.readFile('/disk')).equals(old)).toBe(true);
  });

  it('has only the stretches compared that are named', async () => {
    const { old, image } = contents();
    const disk = new FaultyDisk().mount();
    await put(disk, old);
    const source = sourceOf(image);
    const target = await disk.open('/disk', 'write');
    const extents = [
      { offset: 0, length: CHUNK_BYTES },
      { offset: 8 * CHUNK_BYTES, length: SIZE - 8 * CHUNK_BYTES },
    ];
    const report = await writeHome(source, target, extents, { undo: null, ...quiet });
    expect(report).toMatchObject({ chunks: 3, different: 3 });
    expect(source.asked).toBe(3);
    const wrong = verifyHome(source, target, null, quiet);
    await expect(wrong).rejects.toMatchObject({
      ...{ code: 'ERR_FAILBACK_MISMATCH', context: { offset: 3 * CHUNK_BYTES } },
    });
  });

  it('ends as the point, and can be put back, whenever the power went', async () => {
    const { old, image } = contents();
    for (let cut = 1, isOver = false; !isOver; cut += 1) {
      const random = new Random(cut);
      const world = new FaultyDisk();
      await put(world.mount(), old);
      world.cutPowerAt(world.calls + cut);
      isOver = await run(world.mount(), sourceOf(image)).then(
        () => true,
        (error) => {
          if (!(error instanceof PowerCut)) throw error;
          return false;
        },
      );
      world.restart(random);
      const disk = world.mount();
      if (cut % 2 === 0 && (await disk.exists('/undo'))) {
        // Given up at once.
        const size = (await (await disk.open('/undo', 'read')).size()) > 0;
        if (size) await undone(disk);
        expect(Buffer.from(await disk.readFile('/disk')).equals(old), `${cut}`).toBe(true);
      }
      await run(disk, sourceOf(image));
      const after = Buffer.from(await disk.readFile('/disk'));
      expect(after.subarray(0, SIZE).equals(image), `cut at ${cut}`).toBe(true);
      await undone(disk);
      expect(Buffer.from(await disk.readFile('/disk')).equals(old), `cut at ${cut}`).toBe(true);
      expect(cut).toBeLessThan(60);
    }
  });

  it('can be put back where a run was killed, and the power went after the next', async () => {
    const { old, image } = contents();
    for (let kill = 1, isOver = false; !isOver; kill += 1) {
      const world = new FaultyDisk();
      await put(world.mount(), old);
      world.cutPowerAt(world.calls + kill);
      isOver = await run(world.mount(), sourceOf(image)).then(
        () => true,
        () => false,
      );
      // The program was killed, not the machine: all that it wrote is seen, not all of it is durable.
      world.reopen();
      const from = world.calls;
      await run(world.mount(), sourceOf(image));
      const calls = world.calls - from;
      for (let cut = 1; cut <= calls; cut += 1) {
        const random = new Random(100 * kill + cut);
        const next = new FaultyDisk();
        await put(next.mount(), old);
        next.cutPowerAt(next.calls + kill);
        await run(next.mount(), sourceOf(image)).catch(() => undefined);
        next.reopen();
        next.cutPowerAt(next.calls + cut);
        await run(next.mount(), sourceOf(image)).catch(() => undefined);
        next.restart(random);
        const disk = next.mount();
        // Where not even its title is whole nothing was written.
        await undone(disk).catch((error) => {
          expect(error.code).toMatch(/ERR_UNDO_FILE|ERR_DISK_NOT_FOUND/);
        });
        const isAsBefore = Buffer.from(await disk.readFile('/disk')).equals(old);
        expect(isAsBefore, `killed at ${kill}, cut at ${cut}`).toBe(true);
      }
      expect(kill).toBeLessThan(60);
    }
  });

  it('is put back as it was before the run, in any order of runs, undos and use, whenever the power went', async () => {
    const { old, image } = contents();
    const used = Buffer.from(old);
    // What the first run kept of this chunk is too old from then on.
    used[3 * CHUNK_BYTES + 9] = 0x77;
    for (let cut = 1, isOver = false; !isOver; cut += 1) {
      const world = new FaultyDisk();
      await put(world.mount(), old);
      const steps: { step: string; now: Buffer; act: (disk: Disk) => Promise<unknown> }[] = [
        { step: 'run', now: old, act: (disk) => run(disk, sourceOf(image)) },
        { step: 'undo', now: old, act: (disk) => undone(disk) },
        { step: 'use', now: used, act: (disk) => put(disk, used) },
        { step: 'run', now: used, act: (disk) => run(disk, sourceOf(image)) },
        { step: 'undo', now: used, act: (disk) => undone(disk) },
      ];
      world.cutPowerAt(world.calls + cut);
      let at = 0;
      try {
        for (const disk = world.mount(); at < steps.length; at += 1) await steps[at]!.act(disk);
        isOver = true;
        continue;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
      }
      world.restart(new Random(cut));
      const disk = world.mount();
      const { step, now, act } = steps[at]!;
      const said = `cut at ${cut}, in ${step} ${at}`;
      if (step === 'undo') {
        // A run in between is refused, or begins where the undo had not begun, or anew where it had ended.
        const left = Buffer.from(await disk.readFile('/disk'));
        const isHalf = !left.equals(now) && !left.subarray(0, SIZE).equals(image);
        const refused = await run(disk, sourceOf(image)).then(
          () => '',
          (error) => error.code,
        );
        expect(['', 'ERR_UNDO_FILE'], said).toContain(refused);
        if (isHalf) expect(refused, said).toBe('ERR_UNDO_FILE');
      } else await act(disk);
      if (step === 'run' || step === 'undo') await undone(disk);
      expect(Buffer.from(await disk.readFile('/disk')).equals(now), said).toBe(true);
      for (const later of at < 3 ? steps.slice(Math.max(2, at + 1)) : []) {
        await later.act(disk);
        if (later.step === 'run') continue;
        const content = Buffer.from(await disk.readFile('/disk'));
        expect(content.equals(later.now), `${said}; then ${later.step}`).toBe(true);
      }
      expect(cut).toBeLessThan(150);
    }
  });

  it('that was put back is not put back again unasked, nor written where that had not ended', async () => {
    const { old, image } = contents();
    const world = new FaultyDisk();
    const disk = world.mount();
    await put(disk, old);
    const source = sourceOf(image);
    await run(disk, source);
    world.capacityBytes = world.usedBytes;
    expect(await undone(disk)).toMatchObject({ chunks: DIFFERENT.length });
    world.capacityBytes = Number.POSITIVE_INFINITY;
    await expect(undone(disk)).rejects.toMatchObject({
      ...{ code: 'ERR_UNDO_FILE', message: expect.stringMatching(/put back on \/disk.*--again/) },
    });
    expect(await undone(disk, true)).toMatchObject({ chunks: DIFFERENT.length });
    // Begun once more, and not ended.
    const undo = await readUndoFile(disk, '/undo');
    await undo.mark('begun', '/disk', 'later');
    await undo.close();
    await expect(run(disk, source)).rejects.toMatchObject({
      ...{
        code: 'ERR_UNDO_FILE',
        message: expect.stringMatching(/has not ended: run failback undo/),
      },
    });
    await undone(disk, false, '/other');
    await expect(run(disk, source)).rejects.toThrow(/put back on \/other, not on \/disk/);
    await undone(disk, true);
    await run(disk, source);
    expect((await readUndoFile(disk, '/undo')).title.round).toBe(2);
    await undone(disk);
    expect(Buffer.from(await disk.readFile('/disk')).equals(old)).toBe(true);
  });

  it('is not touched where what it held cannot be kept', async () => {
    const { old, image } = contents();
    const world = new FaultyDisk();
    const disk = world.mount();
    await put(disk, old);
    world.capacityBytes = world.usedBytes + CHUNK_BYTES + 1000;
    await expect(run(disk, sourceOf(image))).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    expect(Buffer.from(await disk.readFile('/disk')).equals(old)).toBe(true);
    world.capacityBytes = Number.POSITIVE_INFINITY;
    await run(disk, sourceOf(image));
    await undone(disk);
    expect(Buffer.from(await disk.readFile('/disk')).equals(old)).toBe(true);
  });

  it('that gives back other bytes than were written is found out', async () => {
    const { old, image } = contents();
    const disk = new FaultyDisk().mount();
    await put(disk, old);
    const target = await disk.open('/disk', 'write');
    let writes = 0;
    const lying: DiskFile = {
      path: target.path,
      read: (buffer, offset) => target.read(buffer, offset),
      size: () => target.size(),
      truncate: (size) => target.truncate(size),
      sync: () => target.sync(),
      close: () => target.close(),
      write: async (buffers, offset) => {
        writes += 1;
        if (writes !== 2) await target.write(buffers, offset);
      },
    };
    await writeHome(sourceOf(image), lying, null, { undo: null, ...quiet });
    await expect(verifyHome(sourceOf(image), lying, null, quiet)).rejects.toMatchObject({
      code: 'ERR_FAILBACK_MISMATCH',
    });
  });

  it('that ends too early, or a staging that fails, is an error; a stop ends it between two batches', async () => {
    const { old, image } = contents();
    const disk = new FaultyDisk().mount();
    await put(disk, old.subarray(0, SIZE - 1));
    await expect(run(disk, sourceOf(image), false)).rejects.toThrow(/ends at byte/);
    const away = { ...sourceOf(image), compare: () => Promise.reject(new Error('away')) };
    await expect(run(disk, { ...away, sizeBytes: CHUNK_BYTES }, false)).rejects.toThrow('away');
    const target = await disk.open('/disk', 'write');
    const stopped = { undo: null, stop: AbortSignal.abort(), onProgress: () => undefined };
    await expect(writeHome(sourceOf(image), target, null, stopped)).rejects.toThrow();
  });
});

describe('an undo file', () => {
  const kept = async (disk: Disk) => {
    const undo = await UndoFile.open(disk, '/undo', '/', title);
    const record = (at: number, byte: number) => ({
      ...{ offset: at * CHUNK_BYTES, content: Buffer.alloc(CHUNK_BYTES, byte) },
    });
    await undo.keep([record(0, 1), record(1, 0)]);
    await undo.keep([record(1, 9), record(2, 2)]);
    await undo.close();
  };
  const all = async (disk: Disk) => {
    const undo = await readUndoFile(disk, '/undo');
    const found: [number, number][] = [];
    for await (const { offset, content } of undo.records()) {
      found.push([offset / CHUNK_BYTES, content[CHUNK_BYTES - 1]!]);
    }
    return { found, torn: await undo.tornBytes() };
  };
  const whole: [number, number][] = [
    [0, 1],
    [1, 0],
    [2, 2],
  ];

  it('keeps each chunk as it was first, zeros as a note', async () => {
    const disk = new FaultyDisk().mount();
    await kept(disk);
    expect(await all(disk)).toEqual({ found: whole, torn: 0 });
    expect((await disk.readFile('/undo')).length).toBeLessThan(
      2 * CHUNK_BYTES + MARKS_BYTES + 1000,
    );
  });

  it('leaves out what was torn at its end, and is gone on with there', async () => {
    const disk = new FaultyDisk().mount();
    await kept(disk);
    const file = await disk.open('/undo', 'write');
    await file.truncate((await file.size()) - 100);
    expect(await all(disk)).toMatchObject({ found: whole.slice(0, 2), torn: CHUNK_BYTES + 28 });
    await kept(disk);
    expect(await all(disk)).toEqual({ found: whole, torn: 0 });
  });

  it('that is damaged is refused, wherever the damage lies, and never cut off there', async () => {
    const undamaged = new FaultyDisk().mount();
    await kept(undamaged);
    const bytes = Buffer.from(await undamaged.readFile('/undo'));
    const size = bytes.length;
    const marksAt = bytes.indexOf('\n', bytes.indexOf('\n') + 1) + 1;
    for (let at = 0; at < size; at += at < marksAt + MARKS_BYTES + 400 ? 7 : 1999) {
      const world = new FaultyDisk();
      await kept(world.mount());
      world.flip('/undo', at);
      const before = Buffer.from(world.peek('/undo'));
      const said = `damaged at ${at} of ${size}`;
      // Whether it was put back cannot be told then: what it keeps can still be.
      if (at >= marksAt && at < marksAt + MARKS_BYTES) {
        expect(await all(world.mount()), said).toEqual({ found: whole, torn: 0 });
      } else {
        await expect(all(world.mount()), said).rejects.toMatchObject({ code: 'ERR_UNDO_FILE' });
      }
      await expect(kept(world.mount()), said).rejects.toMatchObject({ code: 'ERR_UNDO_FILE' });
      expect(before.equals(world.peek('/undo')), said).toBe(true);
    }
  });

  it('of another disk, or none at all, is refused', async () => {
    const disk = new FaultyDisk().mount();
    await kept(disk);
    for (const other of [
      { target: '/x' },
      { volume: 'x' },
      { server: 'x' },
      { sizeBytes: 1 },
      { cause: 'x' },
    ]) {
      const opened = UndoFile.open(disk, '/undo', '/', { ...title, ...other });
      await expect(opened).rejects.toMatchObject({ code: 'ERR_UNDO_FILE' });
    }
    const file = await disk.open('/undo', 'write');
    await file.write([Buffer.from('X')], 30);
    await expect(readUndoFile(disk, '/undo')).rejects.toMatchObject({ code: 'ERR_UNDO_FILE' });
    const text = await disk.open('/text', 'write');
    await text.write([Buffer.from('hello\n')], 0);
    await expect(readUndoFile(disk, '/text')).rejects.toMatchObject({ code: 'ERR_UNDO_FILE' });
  });
});

describe('a set of chunks', () => {
  it('tells its stretches, ascending, the last chunk as long as it is', () => {
    const set = new ChunkSet(SIZE);
    expect([...set.extents()]).toEqual([]);
    set.add({ offset: 9 * CHUNK_BYTES, length: 1536 });
    set.add({ offset: 2 * CHUNK_BYTES, length: 2 * CHUNK_BYTES });
    set.add({ offset: 8 * CHUNK_BYTES, length: CHUNK_BYTES });
    set.add({ offset: 0, length: 1 });
    expect([...set.extents()]).toEqual([
      { offset: 0, length: CHUNK_BYTES },
      { offset: 2 * CHUNK_BYTES, length: 2 * CHUNK_BYTES },
      { offset: 8 * CHUNK_BYTES, length: CHUNK_BYTES + 1536 },
    ]);
  });
});
