/**
 * Copies of a repository: whole, incremental, checked, resumable; two destinations, copies of copies, a
 * source that is collected, damaged or drops points meanwhile, a destination with a retention of its own.
 */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { decodeLease } from '../../src/store/lease/lease-record.ts';
import { openRepository } from '../../src/store/offline.ts';
import type { CopyOptions } from '../../src/store/types.ts';
import { COPY, CopyWorld, expectWhole, openCopy, placeOn } from './support/copy-world.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { keys, withKeys } from './support/key-mode.ts';
import { tinySettings } from './support/store-life.ts';

const ids = (points: readonly { id: string }[]): string[] => points.map(({ id }) => id);

describe('a copy', () => {
  it('holds every sealed point, readable from its directory alone', async () => {
    const world = new CopyWorld(1);
    await world.commit(6);
    const report = await world.copy();
    const { acknowledged } = world.life;
    expect(report).toMatchObject({ points: 6, held: 6, unsealed: 0, skipped: [], dropped: 0 });
    expect(report.bytesWritten).toBeGreaterThan(0);
    expect(await expectWhole(world.far, acknowledged)).toEqual(ids(acknowledged));
    await world.life.store!.close();
  });

  it('costs what is new when it is made again, and nothing where nothing is', async () => {
    const world = new CopyWorld(2);
    world.life.volumes[0]!.write(world.life.random, 0, 9 * CHUNK_BYTES);
    await world.commit(4);
    const first = await world.copy();
    const again = await world.copy();
    expect(again).toMatchObject({ points: 0, held: 4, maps: 0, pieces: 0, bytesWritten: 0 });
    await world.commit(1, 1);
    const third = await world.copy();
    expect(third.points).toBe(1);
    expect(third.bytesWritten).toBeLessThan(first.bytesWritten / 2);
    await expectWhole(world.far, world.life.acknowledged);
    await world.life.store!.close();
  });

  it('stays incremental when the source has folded, collected and rewritten its packs', async () => {
    const world = new CopyWorld(3);
    await world.commit(8);
    const first = await world.copy();
    const { store } = world.life;
    await world.life.retain();
    await store!.collect();
    await store!.collect();
    await world.commit(1, 1);
    const report = await world.copy();
    expect(report).toMatchObject({ points: 1, held: 9, skipped: [] });
    expect(report.bytesWritten).toBeLessThan(first.bytesWritten / 2);
    await expectWhole(world.far, world.life.acknowledged);
    await store!.close();
  });

  it('takes the points that were asked for', async () => {
    const world = new CopyWorld(4);
    await world.commit(6);
    const { acknowledged } = world.life;
    expect((await world.copy({ newest: 1 })).points).toBe(1);
    expect(await expectWhole(world.far, acknowledged)).toEqual([acknowledged.at(-1)!.id]);
    const sinceMs = acknowledged[3]!.timeMs;
    expect((await world.copy({ sinceMs })).points).toBe(2);
    expect((await world.copy({ server: 'nobody' })).points).toBe(0);
    expect(await expectWhole(world.far, acknowledged)).toEqual(ids(acknowledged.slice(3)));
    // Older ones too, after newer ones.
    expect((await world.copy()).points).toBe(3);
    expect(await expectWhole(world.far, acknowledged)).toEqual(ids(acknowledged));
    await world.life.store!.close();
  });

  it('goes by the order of commits where the clock of the server was set back', async () => {
    const world = new CopyWorld(4);
    await world.commit(3);
    world.life.timeMs -= 3_600_000;
    await world.commit(2);
    const { acknowledged, store } = world.life;
    const last = acknowledged.at(-1)!;
    expect((await store!.points({ limit: 1 }))[0]!.id).not.toBe(last.id);
    expect((await store!.servers())[0]!.newestPoint!.id).toBe(last.id);
    expect((await world.copy({ newest: 1 })).points).toBe(1);
    expect(await expectWhole(world.far, acknowledged)).toEqual([last.id]);
    expect((await world.copy()).points).toBe(4);
    await expectWhole(world.far, acknowledged);
    await store!.close();
  });

  it('is known at the source, also after its catalog is lost', async () => {
    const world = new CopyWorld(5);
    await world.commit(2);
    const { repository } = await world.copy({ verify: 'new' });
    await world.commit(1);
    const near = new FaultyDisk();
    await world.life.store!.copy(placeOn(near, 'near'), { newest: 1 });
    const shown = async () =>
      (await world.life.store!.points({ order: 'oldest' })).map(({ copies }) =>
        copies?.map(({ place, verifiedMs }) => `${place} ${verifiedMs !== null}`),
      );
    const expected = [['far true'], ['far true'], ['near false']];
    expect(await shown()).toEqual(expected);
    await world.life.store!.close();
    await world.life.open();
    expect(await shown()).toEqual(expected);
    const notes = world.life.disk.files('/data/repo/copies');
    expect(notes).toContain(`/data/repo/copies/${repository}-0000000001.copy`);
    // A note that cannot be read says nothing, and the next copy writes it anew.
    world.life.disk.flip(notes.find((path) => path.includes(repository))!, 60);
    await world.life.store!.close();
    await world.life.open();
    expect(await shown()).toEqual([[], [], ['near false']]);
    await world.copy();
    expect(await shown()).toEqual([['far false'], ['far false'], ['far false', 'near false']]);
    await world.copy({ verify: 'all' });
    expect((await shown())[0]).toEqual(['far true']);
    expect(world.life.disk.files('/data/repo/copies')).toHaveLength(2);
    await world.life.store!.close();
  });

  it('can be copied, and copied from a directory without a service', async () => {
    const world = new CopyWorld(6);
    await world.commit(5);
    await world.copy();
    await world.life.store!.close();
    const first = await openCopy(world.far);
    const third = new FaultyDisk();
    const report = await first.copy(placeOn(third, 'third'), {});
    expect(report).toMatchObject({ points: 5, held: 5, isNoted: true });
    await first.close();
    await expectWhole(third, world.life.acknowledged);
    const data = await openRepository('/data', silentLog, world.life.disk.mount(), keys);
    const own = new FaultyDisk();
    expect(await data.copy(placeOn(own, 'own'), {})).toMatchObject({ points: 5 });
    await expect(data.copy(placeOn(third, 'third'), {})).rejects.toMatchObject({
      code: 'ERR_COPY_FOREIGN',
    });
    await data.close();
    await expectWhole(own, world.life.acknowledged);
  });

  it('drops at the destination by its own rules, and does not fetch again what it dropped', async () => {
    const world = new CopyWorld(7);
    await world.commit(9);
    await world.copy();
    const keep = [{ everyMs: 4000, forMs: 1e13 }];
    const maps = world.far.files(`${COPY}/deltas`).length;
    const first = await world.copy({ keep });
    expect(first.dropped).toBeGreaterThan(3);
    expect(world.far.files(`${COPY}/deltas`).length).toBeLessThan(maps);
    const left = await expectWhole(world.far, world.life.acknowledged);
    expect(left).toHaveLength(9 - first.dropped);
    const second = await world.copy({ keep });
    expect(second).toMatchObject({ points: 0, dropped: 0, bytesWritten: 0 });
    await world.commit(4);
    await world.copy({ keep });
    await expectWhole(world.far, world.life.acknowledged);
    expect((await world.life.store!.points({})).length).toBe(13);
    await world.life.store!.close();
  });

  it('holds what is held at the source, against its own rules too, until it is released', async () => {
    const world = new CopyWorld(9);
    await world.commit(5);
    const { store, acknowledged } = world.life;
    const first = acknowledged[1]!.id;
    await store!.holdPoint(first, 'asked for by an auditor');
    const keep = [{ everyMs: 1e9, forMs: 1e13 }];
    await world.copy({ keep });
    const copied = async () => {
      const copy = await openCopy(world.far);
      const points = await copy.points({ order: 'oldest' });
      await copy.close();
      return points.map(({ id, hold }) => [id, hold?.reason]);
    };
    const last = acknowledged.at(-1)!.id;
    const held = [first, 'asked for by an auditor'];
    const oldest = acknowledged[0]!.id;
    expect(await copied()).toEqual([[oldest, undefined], held, [last, undefined]]);
    await store!.releasePoint(first);
    await world.copy({ keep });
    expect(await copied()).toEqual([
      [oldest, undefined],
      [last, undefined],
    ]);
    await expectWhole(world.far, acknowledged);
    await store!.close();
  });

  it('has the policies of its source, for whoever takes it into service, and obeys its own rules', async () => {
    const world = new CopyWorld(9);
    await world.commit(5);
    const { life } = world;
    const store = life.store!;
    const adopted = async () => {
      const disk = world.far.mount();
      const taken = await life.open(tinySettings, {
        ...{ disk, root: `/new-${life.random.below(1e9)}`, repo: COPY, adopt: true },
      });
      const policies = taken.policies();
      const { drop } = await taken.planRetention([{ everyMs: 1, forMs: 1 }], 2e12);
      await taken.close();
      life.store = store;
      return { policies, drop: drop.length };
    };
    await store.setPolicy('web', 'all=100y');
    await world.copy();
    const web = { server: 'web', isDamaged: false };
    expect(await adopted()).toEqual({ policies: [{ ...web, keep: 'all=100y' }], drop: 0 });
    const before = world.far.files(`${COPY}/policies`);
    await world.copy();
    expect(world.far.files(`${COPY}/policies`)).toEqual(before);
    // The policy is kept for whoever takes the copy over: what stays in it is by the rules of the copy.
    const { dropped } = await world.copy({ keep: [{ everyMs: 1e9, forMs: 1e13 }] });
    expect([dropped, (await adopted()).policies]).toEqual([3, [{ ...web, keep: 'all=100y' }]]);
    await store.setPolicy('web', null);
    await world.copy();
    expect((await adopted()).policies).toEqual([{ ...web, keep: null }]);
    expect(world.far.files(`${COPY}/policies`)).toHaveLength(1);
    await store.close();
  });

  it('reads back what it wrote, and tells what reads differently', async () => {
    const world = new CopyWorld(8);
    await world.commit(3);
    const report = await world.copy({ verify: 'new' });
    expect(report.verified).toMatchObject({ findings: [] });
    expect(report.verified!.pieces).toBe(report.pieces);
    const pack = world.far.files(`${COPY}/packs`)[0]!;
    world.far.flip(pack, 150);
    expect((await world.copy({ verify: 'new' })).verified!.findings).toEqual([]);
    const all = await world.copy({ verify: 'all' });
    expect(all.verified!.findings.length).toBeGreaterThan(0);
    await world.life.store!.close();
  });
});

describe('a destination', () => {
  it('is refused where it is the source, something else, or the copy of another one', async () => {
    const world = new CopyWorld(11);
    await world.commit(1);
    const { store, disk } = world.life;
    const self = {
      ...withKeys,
      name: 'self',
      disk: disk.mount(),
      repo: '/data/repo',
      scratch: '/data/tmp',
    };
    await expect(store!.copy(self, {})).rejects.toMatchObject({ code: 'ERR_COPY_PLACE' });
    const other = new CopyWorld(12);
    await other.commit(1);
    await other.copy();
    const foreign = store!.copy(placeOn(other.far), {});
    await expect(foreign).rejects.toMatchObject({ code: 'ERR_COPY_FOREIGN' });
    await expectWhole(other.far, other.life.acknowledged);
    const home = { ...placeOn(other.life.disk), repo: '/data/repo', scratch: '/data/tmp' };
    await expect(store!.copy(home, {})).rejects.toMatchObject({ code: 'ERR_COPY_FOREIGN' });
    // A data directory, or anything that is not empty.
    const data = { ...placeOn(other.life.disk), repo: '/data' };
    await expect(store!.copy(data, {})).rejects.toMatchObject({ code: 'ERR_COPY_PLACE' });
    const full = new FaultyDisk();
    await full.makeDirectory(`${COPY}/points/web`);
    await expect(store!.copy(placeOn(full), {})).rejects.toMatchObject({ code: 'ERR_COPY_PLACE' });
    expect(full.files()).toEqual([]);
    await store!.close();
    await other.life.store!.close();
  });

  it('that another copy is writing to is left to that one', async () => {
    const world = new CopyWorld(15);
    await world.commit(3);
    const { clock, store, acknowledged } = world.life;
    const leased = (digit: string) => ({
      ...placeOn(world.far),
      leaseBy: { holder: digit.repeat(32), host: 'here' },
    });
    const slow = store!.copy(leased('a'), { bytesPerSecond: 1000 });
    await clock.runUntil(clock.monotonicMs() + 1000);
    const second = store!.copy(leased('b'), {}).then(
      () => 'copied',
      ({ code }) => code,
    );
    let isDone = false;
    void slow.finally(() => {
      isDone = true;
    });
    while (!isDone) await clock.runUntil(clock.monotonicMs() + 1000);
    expect((await slow).points).toBe(3);
    expect(await second).toBe('ERR_REPOSITORY_IN_USE');
    expect(await store!.copy(leased('b'), {})).toMatchObject({ points: 0, held: 3 });
    await expectWhole(world.far, acknowledged);
    await store!.close();
  });

  it('has one term for all the runs that end in order, and another after one that does not', async () => {
    const world = new CopyWorld(16);
    let run = 0;
    const copy = async (options: CopyOptions = {}) => {
      run += 1;
      const leaseBy = { holder: String(run).padStart(32, '0'), host: 'here' };
      await world.life.store!.copy({ ...placeOn(world.far), leaseBy }, options);
    };
    const newest = async () => {
      const disk = world.far.mount();
      const names = (await disk.list(`${COPY}/lease`)).map(({ name }) => name).sort();
      const path = `${COPY}/lease/${names.at(-1)}`;
      const { term, isReleased } = decodeLease(await disk.readFile(path), path);
      expect(isReleased).toBe(true);
      return term;
    };
    for (let i = 0; i < 4; i += 1) {
      await world.commit(1);
      await copy();
      expect(await newest()).toBe(1);
    }
    const given = AbortSignal.abort(new Error('enough'));
    await world.commit(1);
    await expect(copy({ signal: given })).rejects.toThrow('enough');
    expect(await newest()).toBe(1);
    await copy();
    await copy();
    expect(await newest()).toBe(2);
    await expectWhole(world.far, world.life.acknowledged);
    await world.life.store!.close();
  });

  it('that held a copy and is empty now is not filled again unasked', async () => {
    const world = new CopyWorld(13);
    await world.commit(1);
    await world.copy();
    const unmounted = new FaultyDisk();
    const again = world.copy({}, unmounted);
    await expect(again).rejects.toMatchObject({ code: 'ERR_COPY_LOST' });
    expect(unmounted.files()).toEqual([]);
    expect(await world.copy({ anew: true }, unmounted)).toMatchObject({ points: 1 });
    await expectWhole(unmounted, world.life.acknowledged);
    await world.life.store!.close();
  });

  it('that is full ends the copy; what is there is whole, and counts when there is room', async () => {
    const world = new CopyWorld(14);
    await world.commit(8);
    const all = await world.copy({}, new FaultyDisk(), 'roomy');
    const far = new FaultyDisk();
    let tries = 0;
    far.capacityBytes = 20_000;
    for (;;) {
      tries += 1;
      try {
        await world.copy({}, far);
        break;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_DISK_FULL' });
      }
      await expectWhole(far, world.life.acknowledged).catch((error) => {
        // Not even the first objects had room: then it is no repository yet.
        expect(error).toMatchObject({ code: 'ERR_DATA_FORMAT' });
      });
      far.capacityBytes += Math.ceil(all.bytesWritten / 5);
    }
    expect(tries).toBeGreaterThan(3);
    expect(await expectWhole(far, world.life.acknowledged)).toHaveLength(8);
    await world.life.store!.close();
  });
});

describe('a source', () => {
  it('that is damaged gives what is whole, and tells the rest', async () => {
    for (const [i, kind] of ['packs', 'deltas', 'bases', 'points'].entries()) {
      const world = new CopyWorld(60 + i);
      await world.commit(6);
      const { store, disk } = world.life;
      const files = disk.files(`/data/repo/${kind}`);
      for (const path of files.filter((_, i) => i % 2 === 1)) {
        disk.flip(path, Math.floor(disk.peek(path).length / 2));
      }
      await store!.close();
      await world.life.open();
      const readable: string[] = [];
      for (const { id, contents } of world.life.acknowledged) {
        try {
          for (const [volume, content] of contents) {
            await (await world.life.store!.openImage(id, volume)).read(0, content.length);
          }
          readable.push(id);
        } catch {
          // hurt
        }
      }
      const report = await world.copy();
      expect(report.points + report.skipped.length, kind).toBe(
        (await world.life.store!.points({})).length,
      );
      const copied = await expectWhole(world.far, world.life.acknowledged);
      for (const { point, reason } of report.skipped) {
        expect(reason).toBe('damaged');
        expect(copied).not.toContain(point);
      }
      // What still reads at the source is at the copy.
      expect(copied, kind).toEqual(readable);
      await world.life.store!.close();
    }
  });

  it('whose point goes while it is copied loses nothing else', async () => {
    const world = new CopyWorld(22);
    await world.commit(6);
    const { store, acknowledged } = world.life;
    let dropped = false;
    const report = await world.copy({
      onProgress: () => {
        if (dropped) return;
        dropped = true;
        void store!.applyRetention({ drop: [acknowledged[0]!.id, acknowledged[4]!.id] });
      },
    });
    expect(report.points + report.skipped.length).toBe(6);
    for (const { reason } of report.skipped) expect(reason).toBe('dropped');
    await expectWhole(world.far, acknowledged);
    await store!.close();
  });

  it('is copied no faster than it was told, and the copy can be stopped', async () => {
    const world = new CopyWorld(23);
    await world.commit(4);
    const { clock } = world.life;
    const slow = world.copy({ bytesPerSecond: 50_000 });
    let isDone = false;
    void slow.then(() => {
      isDone = true;
    });
    while (!isDone) await clock.runUntil(clock.monotonicMs() + 100);
    const { bytesWritten, tookMs } = await slow;
    expect((bytesWritten / tookMs) * 1000).toBeLessThan(60_000);
    const stop = new AbortController();
    const halted = world.copy(
      { signal: stop.signal, onProgress: () => stop.abort() },
      new FaultyDisk(),
      'other',
    );
    await expect(halted).rejects.toMatchObject({ name: 'AbortError' });
    await world.life.store!.close();
  });
});
