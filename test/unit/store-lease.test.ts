/**
 * One service at a time on one repository (lease.ts, terms.ts): a second one is refused while the first is
 * there, takes over when it is gone, and what the first writes after that, having been paused, counts for
 * nothing - neither for the second one, nor after a restart, nor for a reader of the repository alone.
 */
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import type { Disk } from '../../src/base/disk.ts';
import { createLog, silentLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { paths } from '../../src/store/format/layout.ts';
import { Lease, type LeaseWorld } from '../../src/store/lease/lease.ts';
import { MAX_TERM } from '../../src/store/lease/lease-record.ts';
import { leasedDisk } from '../../src/store/lease/leased-disk.ts';
import { takeLease } from '../../src/store/lease/take-lease.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { PausedClock, settled } from './support/paused-clock.ts';
import { readsAs, tinySettings } from './support/store-life.ts';
import { commit, drain, SourceVolume, sync } from './support/store-world.ts';

/** Each call takes a few turns of the event loop's microtasks, by chance. */
function slowed(disk: Disk, delay: Random): Disk {
  const wait = async () => {
    for (let turns = delay.below(8); turns > 0; turns -= 1) await Promise.resolve();
  };
  return {
    ...disk,
    list: async (path) => wait().then(() => disk.list(path)),
    link: async (from, to) => wait().then(() => disk.link(from, to)),
  };
}

const holderOf = (n: number) => String(n).padStart(32, '0');

function worldOf(disk: Disk, clock: Clock, n: number): LeaseWorld {
  let next = 0;
  return {
    ...{ disk, clock, log: silentLog, folder: '/repo/lease', repo: '/repo', knownTerm: 0 },
    temporary: () => `/tmp-${n}-${++next}`,
    holder: holderOf(n),
    host: `host-${n}`,
  };
}

const code = (value: string) => expect.objectContaining({ code: value });

describe('a lease', () => {
  const start = () => {
    const clock = new VirtualClock();
    return { clock, disk: new FaultyDisk() };
  };

  it('is refused while another process renews it, and names that one', async () => {
    const { clock, disk } = start();
    await Lease.take(worldOf(disk.mount(), clock, 1));
    const second = settled(clock, Lease.take(worldOf(disk.mount(), clock, 2)));
    await expect(second).rejects.toEqual(code('ERR_REPOSITORY_IN_USE'));
    await expect(second).rejects.toThrow('host-1');
  });

  it('is free at once where the holder ended in order', async () => {
    const { clock, disk } = start();
    const first = await Lease.take(worldOf(disk.mount(), clock, 1));
    await first.release();
    const before = clock.monotonicMs();
    const second = await Lease.take(worldOf(disk.mount(), clock, 2));
    expect([second.term, clock.monotonicMs() - before]).toEqual([2, 0]);
  });

  it('of a process that crashed runs out by itself', async () => {
    const { clock, disk } = start();
    const crashed = new PausedClock(clock);
    await Lease.take(worldOf(disk.mount(), crashed, 1));
    crashed.isPaused = true;
    const second = await settled(clock, Lease.take(worldOf(disk.mount(), clock, 2)));
    expect(second.term).toBe(2);
    await second.confirm();
  });

  it('is lost to whoever took it while the process was paused, at its first question', async () => {
    const { clock, disk } = start();
    const paused = new PausedClock(clock);
    const first = await Lease.take(worldOf(disk.mount(), paused, 1));
    let told = 0;
    first.whenLost = () => {
      told += 1;
    };
    paused.isPaused = true;
    const second = await settled(clock, Lease.take(worldOf(disk.mount(), clock, 2)));
    paused.isPaused = false;
    await expect(first.confirm()).rejects.toEqual(code('ERR_LEASE_LOST'));
    await expect(first.confirm()).rejects.toEqual(code('ERR_LEASE_LOST'));
    expect(told).toBe(1);
    await second.confirm(0);
  });

  it('is lost also where the next number is free again: the holder has removed its old ones', async () => {
    const { clock, disk } = start();
    const paused = new PausedClock(clock);
    const first = await Lease.take(worldOf(disk.mount(), paused, 1));
    paused.isPaused = true;
    const second = await settled(clock, Lease.take(worldOf(disk.mount(), clock, 2)));
    await clock.runUntil(clock.monotonicMs() + 120_000);
    paused.isPaused = false;
    await expect(first.confirm()).rejects.toEqual(code('ERR_LEASE_LOST'));
    await second.confirm(0);
  });

  it('goes to one of two that take it at the same time', async () => {
    for (let seed = 0; seed < 20; seed += 1) {
      const { clock, disk } = start();
      const delay = new Random(seed);
      const tries = [1, 2].map((n) => Lease.take(worldOf(slowed(disk.mount(), delay), clock, n)));
      const results = await settled(clock, Promise.allSettled(tries));
      const taken = results.filter(({ status }) => status === 'fulfilled');
      expect([taken.length, seed]).toEqual([1, seed]);
    }
  });

  it('has the same term for those who commit nothing, where the last has nothing under way', async () => {
    const { clock, disk } = start();
    let n = 0;
    const take = (more: Partial<LeaseWorld> = {}, of: Clock = clock) => {
      n += 1;
      return settled(clock, Lease.take({ ...worldOf(disk.mount(), of, n), ...more }));
    };
    const copy = { goesOn: true };
    const first = await take(copy);
    await first.release(true);
    const second = await take(copy);
    await second.release(true);
    expect([first.term, second.term]).toEqual([1, 1]);
    // A service has a term of its own, and whoever comes after it, and after a run that failed.
    const service = await take();
    await service.release();
    const failed = await take(copy);
    await failed.release();
    const next = await take(copy);
    await next.release(true);
    expect([service.term, failed.term, next.term]).toEqual([2, 3, 4]);
    // The source has had the term, too; and one that crashed has ended in no order.
    const known = await take({ ...copy, knownTerm: 4 });
    await known.release(true);
    const crashed = new PausedClock(clock);
    expect([known.term, (await take(copy, crashed)).term]).toEqual([5, 5]);
    crashed.isPaused = true;
    const last = await take(copy);
    expect(last.term).toBe(6);
    await last.release(true);
    // Of two that would go on one does.
    const tries = [51, 52].map((m) => Lease.take({ ...worldOf(disk.mount(), clock, m), ...copy }));
    const results = await settled(clock, Promise.allSettled(tries));
    const terms = results.flatMap((each) => (each.status === 'fulfilled' ? [each.value.term] : []));
    expect(terms).toEqual([6]);
  });

  it('tells in time that terms run out, and is not given beyond the last', async () => {
    const { clock, disk } = start();
    const told: unknown[] = [];
    const log = {
      ...silentLog,
      warn: (message: string, fields?: object) => told.push([message, fields]),
    };
    const take = (knownTerm: number) =>
      Lease.take({ ...worldOf(disk.mount(), clock, 1), log, knownTerm }).then((lease) =>
        lease.release(),
      );
    await take(100_000);
    expect(told).toEqual([]);
    await take(120_000);
    expect(told).toEqual([
      [expect.stringContaining('few terms are left'), { repo: '/repo', left: 11_070 }],
    ]);
    await take(MAX_TERM - 1);
    await expect(take(MAX_TERM)).rejects.toThrow('no term is left');
  });

  it('is taken above the terms that are there, by their names: what they say may be sealed', async () => {
    const { clock, disk } = start();
    for (const folder of ['/repo', '/repo/terms']) await disk.makeDirectory(folder);
    const file = await disk.mount().open('/repo/terms/0000000007.term', 'create');
    await file.write([Buffer.from('US-SEALD, for whoever has the key')], 0);
    await file.close();
    const lines: string[] = [];
    const log = createLog({ sink: (line) => lines.push(line), level: 'info' });
    const leaseBy = { holder: holderOf(1), host: 'host' };
    const lease = await takeLease(
      { disk: disk.mount(), clock, log, leaseBy },
      paths('/repo', '/repo'),
    );
    expect([lease?.term, lines]).toEqual([8, []]);
  });

  it('is kept where the answer to a renewal was lost', async () => {
    const { clock, disk } = start();
    const mount = disk.mount();
    let losing = false;
    const lossy: Disk = {
      ...mount,
      async link(from, to) {
        await mount.link(from, to);
        if (losing) throw new Error('the answer was lost');
      },
    };
    const lease = await Lease.take(worldOf(lossy, clock, 1));
    losing = true;
    await expect(lease.confirm(-1)).rejects.toThrow('the answer was lost');
    losing = false;
    await lease.confirm(-1);
    await lease.confirm(-1);
  });

  it('leaves a handful of objects, however often it is renewed', async () => {
    const { clock, disk } = start();
    await Lease.take(worldOf(disk.mount(), clock, 1));
    await clock.runUntil(clock.monotonicMs() + 3_600_000);
    expect((await disk.mount().list('/repo/lease')).length).toBeLessThanOrEqual(4);
  });
});

describe('a disk with a lease', () => {
  it('asks once more before what was done together becomes durable', async () => {
    const asked: string[] = [];
    const mount = new FaultyDisk().mount();
    await mount.makeDirectory('/repo');
    const disk = leasedDisk(
      {
        ...mount,
        async together(step) {
          const result = await step();
          asked.push('durable');
          return result;
        },
      },
      '/repo',
      {
        async confirm(maxAgeMs) {
          asked.push(maxAgeMs === undefined ? 'change' : 'removal');
        },
      },
    );
    await disk.together!(async () => {
      await disk.makeDirectory('/repo/points');
      asked.push('a long fold');
    });
    expect(asked).toEqual(['change', 'a long fold', 'removal', 'durable']);
    asked.length = 0;
    await disk.together!(() => disk.list('/repo'));
    expect(asked).toEqual(['durable']);
  });
});

describe('two services on one repository', () => {
  const clock = new VirtualClock();
  const disk = new FaultyDisk();
  const random = new Random(3);
  const catalogs = new Map<string, MemoryCatalog>();

  const open = (name: string, own: Clock, n: number, over: Partial<Disk> = {}): Promise<Store> => {
    const catalog = catalogs.get(name) ?? new MemoryCatalog();
    catalogs.set(name, catalog);
    return openStore({
      disk: { ...disk.mount(), ...over },
      clock: own,
      randomBytes: (count) => random.bytes(count),
      ...{ root: `/${name}`, repo: '/repo', catalog, log: silentLog, settings: tinySettings },
      leaseBy: { holder: holderOf(n), host: `host-${n}` },
    });
  };

  it('leave one history: that of the one which has the lease', async () => {
    const volume = new SourceVolume('/dev/a', 300_000, 'a'.repeat(32));
    const paused = new PausedClock(clock);
    let isLocked = true;
    const first = await open('first', paused, 1);
    const ingest = await first.beginIngest('web', [volume.description]);
    volume.write(random, 0, 200_000);
    await sync(ingest, 0, volume);
    volume.dirty.clear();
    const shared = await commit(ingest, [volume], 1_700_000_000_000);
    await first.seal(shared.id);

    // The first is stopped with an acknowledged point that is not sealed; another machine takes over.
    const stray = new SourceVolume('/dev/a', 300_000, volume.generation);
    stray.content.set(volume.content);
    stray.epoch = volume.epoch;
    stray.write(random, 4096, 60_000);
    await drain(ingest, 0, stray);
    const strayPoint = await commit(ingest, [stray], 1_700_000_001_000);
    paused.isPaused = true;
    await disk.mount().makeDirectory('/second/journal');
    const adopt = await settled(
      clock,
      open('second', clock, 2).catch((error: unknown) => error),
    );
    expect(adopt).toEqual(code('ERR_JOURNAL_DAMAGED')); // a repository without a journal: on purpose
    const { Watermark } = await import('../../src/store/journal/watermark.ts');
    await Watermark.create(disk.mount(), '/second/journal/watermark', '/second/journal');
    const second = await settled(clock, open('second', clock, 2));

    // It wakes up, and writes in spite of the lease, as if it had asked just before.
    const confirm = Lease.prototype.confirm;
    Lease.prototype.confirm = async function (this: Lease, maxAgeMs?: number) {
      if (isLocked && this.term === 1) return;
      await confirm.call(this, maxAgeMs);
    };
    try {
      await first.seal(strayPoint.id);
    } finally {
      Lease.prototype.confirm = confirm;
      isLocked = false;
    }
    expect((await disk.mount().list('/repo/points/web')).length).toBe(2);

    // The second goes on from what it has found, through the same epoch.
    const again = await second.beginIngest('web', [volume.description]);
    expect(again.positions[0]!.committed?.epoch).toBe(1);
    volume.write(random, 100_000, 50_000);
    await drain(again, 0, volume);
    const own = await commit(again, [volume], 1_700_000_002_000);
    await second.seal(own.id);
    expect(await readsAs(second, shared)).toBe(true);
    expect(await readsAs(second, own)).toBe(true);
    await settled(clock, second.close());

    const restarted = await settled(clock, open('second', clock, 3));
    const ids = (await restarted.points({})).map(({ id }) => id);
    expect(ids).toEqual([own.id, shared.id]);
    expect(await readsAs(restarted, own)).toBe(true);
    expect((await restarted.check({ readData: true })).findings).toEqual([]);
    await settled(clock, restarted.close());

    const alone = await openRepository('/repo', silentLog, disk.mount());
    expect((await alone.points({})).map(({ id }) => id)).toEqual([own.id, shared.id]);
    await alone.close();

    // The first one, started again, drops what it had acknowledged too late, and says so.
    const returned = await settled(clock, open('first', clock, 4));
    expect((await returned.points({})).map(({ id }) => id)).toEqual([own.id, shared.id]);
    expect(await readsAs(returned, own)).toBe(true);
    await settled(clock, returned.close());
  });

  it('stops the one that has lost the lease, with one clear error', async () => {
    const paused = new PausedClock(clock);
    const first = await settled(clock, open('first', paused, 5));
    paused.isPaused = true;
    const told: string[] = [];
    first.watchFailure((error) => told.push(error.code));
    const second = await settled(clock, open('second', clock, 6));
    paused.resume();
    await clock.runUntil(clock.monotonicMs() + 1000);
    // Also where nobody asks for anything; and to whoever begins to listen later.
    expect(told).toEqual(['ERR_LEASE_LOST']);
    first.watchFailure((error) => told.push(error.code));
    expect(told).toHaveLength(2);
    const volume = new SourceVolume('/dev/b', 70_000, 'b'.repeat(32));
    const late = first.beginIngest('late', [volume.description]).then(async (ingest) => {
      volume.write(random, 0, 70_000);
      await sync(ingest, 0, volume);
      await ingest.durable();
    });
    await expect(late).rejects.toEqual(code('ERR_STORE_FAILED'));
    await expect(late).rejects.toThrow('has taken the repository');
    await first.close().catch(() => undefined);
    await settled(clock, second.close());
  });
});

describe('a place that was named by hand', () => {
  it('is refused where something else lies there, and taken where a making was cut short', async () => {
    const clock = new VirtualClock();
    const disk = new FaultyDisk();
    const openOn = (place: FaultyDisk) =>
      openStore({
        disk: place.mount(),
        clock,
        randomBytes: (count) => new Random(1).bytes(count),
        ...{ root: '/data', repo: '/repo', catalog: new MemoryCatalog(), log: silentLog },
        leaseBy: { holder: holderOf(1), host: 'host-1' },
      });
    const open = () => openOn(disk);
    await disk.mount().makeDirectory('/repo/packs');
    await disk.mount().makeDirectory('/repo/photos');
    await expect(open()).rejects.toEqual(code('ERR_DATA_FORMAT'));
    await expect(open()).rejects.toThrow('photos');
    expect((await disk.mount().list('/repo')).map(({ name }) => name)).toEqual(['packs', 'photos']);
    const empty = new FaultyDisk();
    await empty.mount().makeDirectory('/repo/packs');
    await empty.mount().makeDirectory('/repo/lease');
    await settled(clock, (await openOn(empty)).close());
  });
});
