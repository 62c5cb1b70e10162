/** Where two points differ, told by the maps alone: equal to what a comparison of all bytes would tell. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { BLOCK_BYTES, CHUNK_BYTES, chunkCount } from '../../src/model/geometry.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { commit, drain, openWithoutGrace, SourceVolume, sync } from './support/store-world.ts';

/** Two leaves, the last chunk short. */
const SIZE = 1060 * CHUNK_BYTES - 3 * BLOCK_BYTES;
const POINTS = 24;

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

class History {
  readonly disk = new FaultyDisk();
  readonly random = new Random(11);
  readonly volume = new SourceVolume('/dev/a', SIZE, 'a'.repeat(32));
  /** Digest of every chunk at each point. */
  readonly points: { readonly id: string; readonly chunks: readonly string[] }[] = [];
  store!: Store;

  async open(): Promise<void> {
    this.store = await openWithoutGrace(this.disk, this.random);
  }

  async live(): Promise<void> {
    const { volume, store, random } = this;
    for (let i = 0; i < 20; i += 1) volume.write(random, random.below(SIZE), 3 * CHUNK_BYTES);
    volume.dirty.clear();
    const ingest = await store.beginIngest('web', [volume.description]);
    await sync(ingest, 0, volume);
    await this.commit(ingest);
    for (let point = 1; point < POINTS; point += 1) {
      const touched = new Set<number>();
      for (let write = 0; write < 6; write += 1) {
        // Mostly in one place, so that blocks come back to what they were, and chunks become zero.
        const offset = random.below(write < 4 ? 12 * CHUNK_BYTES : SIZE);
        const length = random.below(4) === 0 ? 2 * CHUNK_BYTES : BLOCK_BYTES;
        volume.write(random, offset - (offset % BLOCK_BYTES), length);
        for (const block of volume.dirty) touched.add(Math.floor(block / 16));
      }
      await drain(ingest, 0, volume);
      await this.commit(ingest, touched);
      if (point % 5 === 0) await store.seal(this.points.at(-1)!.id);
    }
    await ingest.close();
  }

  private async commit(ingest: Parameters<typeof commit>[0], touched?: ReadonlySet<number>) {
    const { volume } = this;
    const { id } = await commit(ingest, [volume], 1e12 + this.points.length * 5000);
    const before = this.points.at(-1)?.chunks;
    const chunks = Array.from({ length: chunkCount(SIZE) }, (_, at) =>
      before === undefined || touched?.has(at) === true ? hashOf(volume.chunk(at)) : before[at]!,
    );
    this.points.push({ id, chunks });
  }

  /** Chunks that the store says differ, each once, ascending. */
  async told(from: number, to: number, offset = 0): Promise<number[]> {
    const chunks: number[] = [];
    const [before, after] = [this.points[from]!.id, this.points[to]!.id];
    for await (const extent of this.store.differences(before, after, '/dev/a', offset)) {
      expect(extent.offset % CHUNK_BYTES).toBe(0);
      expect(extent.offset + extent.length).toBeLessThanOrEqual(SIZE);
      const end = Math.ceil((extent.offset + extent.length) / CHUNK_BYTES);
      for (let at = extent.offset / CHUNK_BYTES; at < end; at += 1) chunks.push(at);
    }
    return chunks;
  }

  expected(from: number, to: number): number[] {
    const [before, after] = [this.points[from]!.chunks, this.points[to]!.chunks];
    return after.flatMap((hash, at) => (hash === before[at] ? [] : [at]));
  }
}

describe('differences of two points', () => {
  it('are the chunks whose bytes differ, staged, sealed and folded, forwards and backwards', async () => {
    const history = new History();
    await history.open();
    await history.live();
    const { random, store, points } = history;
    const compare = async (alive: readonly number[]) => {
      for (let i = 0; i < 25; i += 1) {
        const from = alive[random.below(alive.length)]!;
        const to = alive[random.below(alive.length)]!;
        expect(await history.told(from, to), `${from} to ${to}`).toEqual(
          history.expected(from, to),
        );
      }
    };
    const all = points.map((_, at) => at);
    await compare(all);
    for (const { id } of points) await store.seal(id);
    await compare(all);
    const plan = await store.planRetention([{ everyMs: 20_000, forMs: 1e13 }], 1e12 + 1e9);
    await store.applyRetention(plan);
    await store.collect();
    const there = new Set((await store.points({})).map(({ id }) => id));
    const alive = all.filter((at) => there.has(points[at]!.id));
    expect(alive.length).toBeLessThan(POINTS);
    await compare(alive);
    const [first, last] = [alive[0]!, alive.at(-1)!];
    const whole = history.expected(first, last);
    const middle = whole[Math.floor(whole.length / 2)]!;
    expect(await history.told(first, last, middle * CHUNK_BYTES + 5)).toEqual(
      whole.filter((at) => at >= middle),
    );
    await store.close();
  });

  it('of points that are not there are refused, and hold nothing afterwards', async () => {
    const history = new History();
    await history.open();
    const { volume, store } = history;
    const ingest = await store.beginIngest('web', [volume.description]);
    await sync(ingest, 0, volume);
    const first = await commit(ingest, [volume], 1e12);
    const second = await commit(ingest, [volume], 2e12);
    await ingest.close();
    const ask = (from: string, to: string, name = '/dev/a') =>
      store.differences(from, to, name).next();
    await expect(ask('no', second.id)).rejects.toMatchObject({ code: 'ERR_POINT_NOT_FOUND' });
    await expect(ask(first.id, 'no')).rejects.toMatchObject({ code: 'ERR_POINT_NOT_FOUND' });
    await expect(ask(first.id, second.id, 'x')).rejects.toMatchObject({
      code: 'ERR_VOLUME_NOT_FOUND',
    });
    expect(await ask(first.id, second.id)).toEqual({ value: undefined, done: true });
    for (const { id } of [first, second]) await store.seal(id);
    expect(await store.applyRetention({ drop: [first.id] })).toEqual([
      { id: first.id, server: 'web' },
    ]);
    await store.close();
  });
});
