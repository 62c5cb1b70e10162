/**
 * Any time, not only any point: what is stored for a point is near to what changed since the last one,
 * however many points there are, and chains stay short; as retention drops points by levels, what only they
 * needed goes.
 */
import { createCipheriv } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { planChain } from '../../src/model/fold-plan.ts';
import { BLOCK_BYTES, CHUNK_BYTES } from '../../src/model/geometry.ts';
import { parseBaseName, parseDeltaName } from '../../src/store/format/layout.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs } from './support/store-life.ts';
import {
  commit,
  drain,
  type Expected,
  openWithoutGrace,
  SourceVolume,
  sync,
} from './support/store-world.ts';

const POINTS = 180;
const WRITES = 8;
const CHANGED = WRITES * BLOCK_BYTES;
const STEP_MS = 5000;
const T = 1_700_000_000_000;
/** What a point costs beyond its bytes: the object, the heads of its maps and records. */
const CONSTANT = 4096;

const noise = (seed: number, length: number): Uint8Array =>
  createCipheriv('aes-128-ctr', Buffer.alloc(16, `${seed}`), Buffer.alloc(16)).update(
    Buffer.alloc(length),
  );

class Hour {
  readonly disk = new FaultyDisk();
  readonly random = new Random(3);
  readonly volume = new SourceVolume('/dev/a', 512 * CHUNK_BYTES, 'a'.repeat(32));
  readonly some: Expected[] = [];
  store!: Store;
  private written = 0;

  async open(): Promise<void> {
    this.store = await openWithoutGrace(this.disk, this.random);
  }

  /** `POINTS` points, each of so many blocks somewhere in the first `blocks`. */
  async live(blocks: number): Promise<{ first: number; last: number }> {
    const { volume, store, random } = this;
    volume.content.set(noise(1, volume.content.length));
    const ingest = await store.beginIngest('web', [volume.description]);
    await sync(ingest, 0, volume);
    const { id } = await commit(ingest, [volume], T);
    await store.seal(id);
    await this.settle();
    const first = await this.size('/data/repo');
    for (let point = 1; point <= POINTS; point += 1) {
      for (let write = 0; write < WRITES; write += 1) {
        const block = random.below(blocks);
        this.written += 1;
        volume.content.set(noise(1000 + this.written, BLOCK_BYTES), block * BLOCK_BYTES);
        volume.dirty.add(block);
      }
      await drain(ingest, 0, volume);
      const made = await commit(ingest, [volume], T + point * STEP_MS);
      if (point % 60 === 7) this.some.push(made);
      if (point % 3 === 0) await store.seal(made.id);
    }
    await ingest.close();
    await this.settle();
    return { first, last: await this.size('/data/repo') };
  }

  /** Packs that were merged go. */
  async settle(): Promise<void> {
    await this.store.collect();
    await this.store.collect();
  }

  async size(path: string): Promise<number> {
    let sum = 0;
    for (const { name, isDirectory } of await this.disk.list(path)) {
      if (isDirectory) sum += await this.size(`${path}/${name}`);
      else {
        const file = await this.disk.open(`${path}/${name}`, 'read');
        sum += await file.size();
        await file.close();
      }
    }
    return sum;
  }

  async chainLength(): Promise<number> {
    const names = async (path: string): Promise<string[]> => {
      const entries = await this.disk.list(path);
      const below = await Promise.all(
        entries.map(({ name, isDirectory }) => (isDirectory ? names(`${path}/${name}`) : [name])),
      );
      return below.flat();
    };
    const deltas = (await names('/data/repo/deltas')).map((name) => parseDeltaName(name)!);
    const bases = (await names('/data/repo/bases')).map((name) => parseBaseName(name)!);
    return planChain(bases, deltas, POINTS + 1)!.deltas.length;
  }

  async expectSome(): Promise<void> {
    const there = new Set((await this.store.points({})).map(({ id }) => id));
    for (const point of this.some) {
      if (there.has(point.id)) expect(await readsAs(this.store, point)).toBe(true);
    }
    expect((await this.store.check({ readData: true })).findings).toEqual([]);
  }
}

describe('a point costs what changed', () => {
  it.each([
    ['all over the volume', 512 * 16, 1.15],
    ['in a few places', 160, 1.6],
  ])(
    '%s',
    async (_name, blocks, factor) => {
      const hour = new Hour();
      await hour.open();
      const { first, last } = await hour.live(blocks);
      const bytes = (last - first) / POINTS;
      expect(bytes).toBeGreaterThan(CHANGED);
      expect(bytes).toBeLessThan(CHANGED * factor + CONSTANT);
      expect(await hour.chainLength()).toBeLessThan(64 + 32);
      await hour.expectSome();
      // Folded in by levels: one point in a hundred seconds, then one in ten minutes.
      for (const [everyMs, kept] of [
        [100_000, 10],
        [600_000, 3],
      ] as const) {
        const rules = [{ everyMs, forMs: 1e12 }];
        const plan = await hour.store.planRetention(rules, T + 1e9);
        expect(plan.keep.length).toBeLessThanOrEqual(kept + 1);
        await hour.store.applyRetention(plan);
        await hour.settle();
        await hour.expectSome();
        const left = (await hour.size('/data/repo')) - first;
        // Of each block that was written between two points only the last state is left.
        const most =
          plan.keep.length * Math.min(blocks, (POINTS * WRITES) / (kept - 1)) * BLOCK_BYTES;
        expect(left).toBeLessThan(most * 2.2 + plan.keep.length * CONSTANT);
      }
      await hour.store.close();
    },
    240_000,
  );
});
