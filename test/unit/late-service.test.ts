/**
 * Two services on one bucket, with leases: one is stopped in the middle of its retention, before the bundle
 * that drops a point is put, or at any other request; the other takes over and holds that point, or drops
 * another one too. When the first wakes up what was held is there, what was dropped is not, and everything
 * reads right.
 */
import { expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { BucketDisk } from '../../src/store/objects/bucket-disk.ts';
import { BundledObjects } from '../../src/store/objects/bundled-objects.ts';
import type { ObjectStore } from '../../src/store/objects/object-store.ts';
import { openRepositoryIn } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { MemoryObjects } from './support/memory-objects.ts';
import { PausedClock, settled } from './support/paused-clock.ts';
import { Sleeper, type StopAt } from './support/sleeper.ts';
import { readsAs, tinySettings } from './support/store-life.ts';
import { commit, drain, type Expected, SourceVolume, sync } from './support/store-world.ts';

const REPO = 's3://bucket/prefix';
const told = { onDamage: () => undefined, onLeft: () => undefined };

class World {
  readonly clock = new VirtualClock();
  readonly disk = new FaultyDisk();
  readonly random = new Random(11);
  readonly memory = new MemoryObjects();
  private holders = 0;

  diskOver(objects: ObjectStore, mirror: string): BucketDisk {
    const bundles = new BundledObjects(objects, told);
    const { clock, disk } = this;
    const common = { local: disk.mount(), root: REPO, clock, mirror };
    return new BucketDisk({ ...common, objects: bundles, bundles });
  }

  open(root: string, clock: Clock, objects: ObjectStore = this.memory) {
    const disk = this.diskOver(objects, `${root}/mirror`);
    this.holders += 1;
    return openStore({
      ...{ disk, clock, root, repo: REPO, catalog: new MemoryCatalog(), log: silentLog },
      randomBytes: (count) => this.random.bytes(count),
      settings: { ...tinySettings, baseAfterDeltas: 1000 },
      adopt: true,
      leaseBy: { holder: String(this.holders).padStart(32, '0'), host: root },
      onAlone: (term, confirm) => disk.keepListing(term, confirm),
    });
  }

  async offline() {
    const disk = this.diskOver(this.memory, '/reader');
    return openRepositoryIn({ disk, repo: REPO, objects: this.memory }, silentLog);
  }
}

/** False where the retention of the first has fewer requests than `at`. */
async function story(at: number, when: StopAt, isDropping: boolean): Promise<boolean> {
  const world = new World();
  const { clock, random } = world;
  const paused = new PausedClock(clock);
  const view = new Sleeper(world.memory);
  const first = await settled(clock, world.open('/first', paused, view));
  const volume = new SourceVolume('/dev/a', 300_000, 'a'.repeat(32));
  const ingest = await first.beginIngest('web', [volume.description]);
  volume.write(random, 0, 200_000);
  await sync(ingest, 0, volume);
  volume.dirty.clear();
  const points: Expected[] = [];
  for (let i = 0; i < 4; i += 1) {
    volume.write(random, random.below(200_000), 30_000);
    await drain(ingest, 0, volume);
    points.push(await commit(ingest, [volume], 1_700_000_000_000 + i * 1000));
    await first.seal(points.at(-1)!.id);
  }
  const [kept, dropped] = points as [Expected, Expected];
  view.sleepAt(at, when);
  const late = first.applyRetention({ drop: [kept.id] }).catch(() => undefined);
  await Promise.race([settled(clock, late), view.asleep]);
  if (!view.isAsleep) return false;
  paused.isPaused = true;

  const second = await settled(clock, world.open('/second', clock));
  const isThere = (await second.points({})).some(({ id }) => id === kept.id);
  if (isThere) await settled(clock, second.holdPoint(kept.id, 'needed'));
  if (isDropping) {
    await settled(clock, second.applyRetention({ drop: [dropped.id] }));
    await settled(clock, second.collect());
  }
  view.wake();
  paused.resume();
  await settled(clock, late);
  const gone = [...(isDropping ? [dropped] : []), ...(isThere ? [] : [kept])];
  const expected = points.filter((point) => !gone.includes(point));
  const alone = await world.offline();
  const listed = (await alone.points({ order: 'oldest' })).map(({ id }) => id);
  expect(listed, `${when} ${at}`).toEqual(expected.map(({ id }) => id));
  for (const point of expected) expect(await readsAs(alone, point)).toBe(true);
  expect((await alone.check({ readData: true })).findings).toEqual([]);
  await alone.close();
  for (const point of expected) expect(await readsAs(second, point)).toBe(true);
  await settled(clock, second.close());
  const third = await settled(clock, world.open('/third', clock));
  expect((await third.points({})).length).toBe(expected.length);
  expect((await third.check({ readData: true })).findings).toEqual([]);
  await settled(clock, third.close());
  return true;
}

it.each(['before', 'after', 'again'] as const)(
  'a point that was held by the one that took over stays: stopped %s any request',
  async (when) => {
    for (const isDropping of [false, true]) {
      let at = 1;
      while (await story(at, when, isDropping)) at += 1;
      expect(at).toBeGreaterThan(4);
    }
  },
);
