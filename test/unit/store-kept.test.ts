/**
 * Holds and policies as objects of the repository: what is held stays, through retention, folding,
 * collection, a rebuilt catalog and a power cut at every durable step; what is damaged errs to the safe
 * side; and a reader without a service knows both.
 */
import { describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs, StoreLife, tinySettings } from './support/store-life.ts';

const LATE = 1_800_000_000_000;
const EVERYTHING = [{ everyMs: 0, forMs: 1e12 }];
const NOTHING = [{ everyMs: 0, forMs: 1 }];

const idsOf = async (store: Store) => (await store.points({ order: 'oldest' })).map(({ id }) => id);

async function retain(store: Store, rules: Parameters<Store['planRetention']>[0]) {
  return store.applyRetention(await store.planRetention(rules, LATE));
}

async function lifeOf(points: number, seed = 5): Promise<StoreLife> {
  const life = new StoreLife(new FaultyDisk(), seed);
  await life.open();
  const ingest = await life.connect();
  for (let i = 0; i < points; i += 1) {
    await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
  }
  await ingest.close();
  return life;
}

async function reopened(life: StoreLife): Promise<Store> {
  await life.store!.close();
  life.disk.reopen();
  return life.open(); // with an empty catalog: all is told by the repository
}

describe('a held point', () => {
  it('stays through retention, folds and collection, and after the catalog is rebuilt', async () => {
    const life = await lifeOf(6);
    const held = life.acknowledged[2]!;
    const shown = await life.store!.holdPoint(held.id, 'case 4711');
    expect(shown.hold).toMatchObject({ reason: 'case 4711' });
    let store = await reopened(life);
    expect((await store.point(held.id)).hold).toEqual(shown.hold);
    await retain(store, NOTHING);
    await store.collect();
    await store.collect();
    expect(await idsOf(store)).toEqual([held.id, life.acknowledged.at(-1)!.id]);
    expect(await readsAs(store, held)).toBe(true);
    store = await reopened(life);
    expect(await readsAs(store, held)).toBe(true);
    expect((await store.check({ readData: true })).findings).toEqual([]);
    const plan = await store.planRetention(NOTHING, LATE);
    expect(plan.points.map(({ keptBy }) => keptBy)).toEqual([['hold'], ['newest']]);
    await store.releasePoint(held.id);
    await retain(store, NOTHING);
    expect(await idsOf(store)).toEqual([life.acknowledged.at(-1)!.id]);
    expect((await store.check({ readData: true })).findings).toEqual([]);
    await store.close();
  });

  it('that is staged is sealed first', async () => {
    const life = new StoreLife(new FaultyDisk(), 6);
    await life.open();
    const ingest = await life.connect();
    const { id } = await life.writeAndCommit(ingest);
    expect(await life.store!.holdPoint(id, 'now')).toMatchObject({ state: 'sealed' });
    await ingest.close();
    await life.store!.close();
  });

  it('is refused twice, without a reason, and where the point is gone', async () => {
    const life = await lifeOf(3);
    const [first, second] = life.acknowledged;
    const store = life.store!;
    await store.holdPoint(first!.id, 'x');
    await expect(store.holdPoint(first!.id, 'y')).rejects.toMatchObject({ code: 'ERR_POINT_HELD' });
    await expect(store.holdPoint(second!.id, ' ')).rejects.toMatchObject({ code: 'ERR_USAGE' });
    await retain(store, NOTHING);
    const gone = store.holdPoint(second!.id, 'too late');
    await expect(gone).rejects.toThrow('it never was, or retention has dropped it');
    const never = store.releasePoint(second!.id);
    await expect(never).rejects.toMatchObject({ code: 'ERR_POINT_NOT_HELD' });
    await store.close();
  });

  it('is held, and told, though the object of the hold is damaged', async () => {
    const life = await lifeOf(3);
    const held = life.acknowledged[0]!;
    await life.store!.holdPoint(held.id, 'case');
    await life.store!.close();
    const path = `/data/repo/holds/${held.id}.hold`;
    const file = await life.disk.open(path, 'write');
    await file.write([Buffer.from('?')], 50);
    await file.close();
    life.disk.reopen();
    const store = await life.open();
    await retain(store, NOTHING);
    expect(await readsAs(store, held)).toBe(true);
    expect((await store.check({ readData: false })).findings).toMatchObject([
      { kind: 'damaged-object', object: path },
    ]);
    await store.releasePoint(held.id);
    expect((await store.check({ readData: false })).findings).toEqual([]);
    await store.close();
  });

  it('whose object has gone is told by a check', async () => {
    const life = await lifeOf(3);
    const held = life.acknowledged[0]!;
    await life.store!.holdPoint(held.id, 'case');
    await life.store!.close();
    await life.disk.remove(`/data/repo/points/web/${held.id}.point`);
    life.disk.reopen();
    const store = await life.open();
    const { findings } = await store.check({ readData: false });
    expect(findings).toMatchObject([{ kind: 'missing-object', points: [held.id] }]);
    await store.close();
  });

  it('is known to a reader without a service', async () => {
    const life = await lifeOf(2);
    const held = life.acknowledged[0]!;
    await life.store!.holdPoint(held.id, 'case');
    await life.store!.close();
    life.disk.reopen();
    const offline = await openRepository('/data', silentLog, life.disk.mount());
    const holds = (await offline.points({ order: 'oldest' })).map(({ hold }) => hold?.reason);
    expect(holds).toEqual(['case', undefined]);
    await offline.close();
  });
});

it('a point that was held after the plan was made stays', async () => {
  const life = await lifeOf(4);
  const store = life.store!;
  const plan = await store.planRetention(NOTHING, LATE);
  const [first, second] = life.acknowledged;
  await store.holdPoint(first!.id, 'just in time');
  expect(plan.drop).toContain(first!.id);
  expect((await store.applyRetention(plan)).map(({ id }) => id)).toContain(second!.id);
  expect(await readsAs(store, first!)).toBe(true);
  await store.close();
});

describe('the policy of a server', () => {
  it('goes before the default, outlives the catalog, and is given up for the default', async () => {
    const life = await lifeOf(4);
    let store = life.store!;
    await store.setPolicy('web', 'all=1s');
    expect((await store.planRetention(EVERYTHING, LATE)).drop).toHaveLength(3);
    store = await reopened(life);
    expect(store.policies()).toEqual([{ server: 'web', keep: 'all=1s', isDamaged: false }]);
    await store.setPolicy('web', null);
    expect((await store.planRetention(EVERYTHING, LATE)).drop).toEqual([]);
    store = await reopened(life);
    expect(store.policies()).toEqual([{ server: 'web', keep: null, isDamaged: false }]);
    expect(await life.disk.list('/data/repo/policies/web')).toHaveLength(1);
    await expect(store.setPolicy('web', 'nonsense')).rejects.toMatchObject({
      code: 'ERR_RETENTION_RULES',
    });
    await expect(store.setPolicy('other', 'all=1s')).rejects.toMatchObject({
      code: 'ERR_SERVER_NOT_FOUND',
    });
    await store.close();
  });

  it('that is damaged drops nothing', async () => {
    const life = await lifeOf(4);
    await life.store!.setPolicy('web', 'all=1s');
    await life.store!.close();
    const [name] = await life.disk.list('/data/repo/policies/web');
    const file = await life.disk.open(`/data/repo/policies/web/${name!.name}`, 'write');
    await file.write([Buffer.from('?')], 50);
    await file.close();
    life.disk.reopen();
    const store = await life.open();
    const plan = await store.planRetention(NOTHING, LATE);
    expect(plan.drop).toEqual([]);
    expect(plan.points[0]!.keptBy).toEqual(['policy unknown']);
    expect((await store.check({ readData: false })).findings).toMatchObject([
      { kind: 'damaged-object' },
    ]);
    await store.setPolicy('web', 'all=1s');
    expect((await store.planRetention(NOTHING, LATE)).drop).toHaveLength(3);
    await store.close();
  });

  it('that was changed since a plan was made undoes the plan', async () => {
    const life = await lifeOf(4);
    const store = life.store!;
    const plan = await store.planRetention(NOTHING, LATE);
    await store.setPolicy('web', 'all=10y');
    expect(await store.applyRetention(plan)).toEqual([]);
    expect(await idsOf(store)).toHaveLength(4);
    await store.close();
  });
});

describe('a point whose object is locked', () => {
  it('stays, in the catalog too, and the others go', async () => {
    const life = await lifeOf(4);
    await life.store!.close();
    life.disk.reopen();
    const [locked, free] = life.acknowledged;
    const disk: Disk = {
      ...bound(life.disk.mount()),
      async remove(path) {
        if (!path.endsWith(`${locked!.id}.point`)) return life.disk.mount().remove(path);
        throw new UnderstudyError('ERR_OBJECTS_LOCKED' as 'ERR_DISK_IO', 'locked', { path });
      },
    };
    const store = await openStore({
      ...{ disk, root: '/data', catalog: new MemoryCatalog(), log: silentLog },
      ...{ clock: new VirtualClock(), randomBytes: (count) => life.random.bytes(count) },
      settings: tinySettings,
    });
    const gone = await retain(store, NOTHING);
    expect(gone.map(({ id }) => id)).not.toContain(locked!.id);
    expect(gone.map(({ id }) => id)).toContain(free!.id);
    expect(await readsAs(store, locked!)).toBe(true);
    expect(await idsOf(store)).toEqual([locked!.id, life.acknowledged.at(-1)!.id]);
    await store.close();
  });
});

/** The methods of a disk as properties of their own. */
const bound = (disk: Disk): Disk => ({
  open: (path, mode) => disk.open(path, mode),
  readFile: (path) => disk.readFile(path),
  list: (path) => disk.list(path),
  exists: (path) => disk.exists(path),
  makeDirectory: (path) => disk.makeDirectory(path),
  rename: (from, to) => disk.rename(from, to),
  link: (from, to) => disk.link(from, to),
  remove: (path) => disk.remove(path),
  syncDirectory: (path) => disk.syncDirectory(path),
});

/** What was answered, and what was asked and not answered yet. */
class KeptLife {
  readonly life: StoreLife;
  held: 'no' | 'yes' | 'perhaps' = 'no';
  policies: (string | null | undefined)[] = [undefined];
  dropped: 'no' | 'all but held' | 'all' = 'no';

  constructor(life: StoreLife) {
    this.life = life;
  }

  get first() {
    return this.life.acknowledged[0]!;
  }

  async run(): Promise<void> {
    const store = this.life.store!;
    this.held = 'perhaps';
    await store.holdPoint(this.first.id, 'case 4711');
    this.held = 'yes';
    await this.setPolicy('all=1s');
    this.dropped = 'all but held';
    await retain(store, EVERYTHING);
    await store.collect();
    await this.setPolicy('all=2s');
    await this.setPolicy(null);
    this.held = 'perhaps';
    await store.releasePoint(this.first.id);
    this.held = 'no';
    this.dropped = 'all';
    await retain(store, NOTHING);
    await store.collect();
    await store.close();
  }

  private async setPolicy(keep: string | null): Promise<void> {
    this.policies.push(keep);
    await this.life.store!.setPolicy('web', keep);
    this.policies = [keep];
  }

  async expectAll(): Promise<void> {
    const store = this.life.store!;
    const listed = await idsOf(store);
    const last = this.life.acknowledged.at(-1)!;
    const must = this.life.acknowledged.filter((point) => {
      if (this.dropped === 'no' || point === last) return true;
      return this.dropped === 'all but held' && point === this.first;
    });
    for (const point of this.life.acknowledged) {
      if (!must.includes(point) && !listed.includes(point.id)) continue;
      expect(await readsAs(store, point)).toBe(true);
    }
    const isHeld = store.holdOf(this.first.id) !== null;
    if (this.held !== 'perhaps') expect(isHeld).toBe(this.held === 'yes');
    const policy = store.policies().find(({ server }) => server === 'web');
    expect(this.policies).toContainEqual(policy?.keep);
    expect(policy?.isDamaged ?? false).toBe(false);
    expect((await store.check({ readData: true })).findings).toEqual([]);
  }
}

describe('a power cut', () => {
  it('at any step of holds, policies and retention loses none of them', async () => {
    const stride = Number(process.env.STORE_CRASH_STRIDE ?? 3);
    const whole = new KeptLife(await lifeOf(4));
    const begin = whole.life.disk.calls;
    await whole.run();
    const end = whole.life.disk.calls;
    expect(end - begin).toBeGreaterThan(40);
    for (let call = begin + 1; call <= end; call += stride) {
      const kept = new KeptLife(await lifeOf(4));
      kept.life.disk.cutPowerAt(call);
      await kept.run().catch(() => null);
      const cutIn = kept.life.disk.lastCall;
      kept.life.disk.restart(new Random(call));
      try {
        await kept.life.open();
        await kept.expectAll();
        await kept.life.store!.close();
      } catch (error) {
        throw new Error(`power cut at call ${call} (${cutIn})`, { cause: error });
      }
    }
  });
});
