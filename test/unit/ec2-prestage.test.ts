/**
 * The chains of snapshots that staging keeps ready, over a real store and the strict double: kept up to
 * date, gone on with, lent to launches, shared fairly, switched, and what fails is told.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { createEc2Launcher } from '../../src/recovery/ec2/ec2-launcher.ts';
import { PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import type { PrestageSettings } from '../../src/staging/prestage/ports.ts';
import { Prestage } from '../../src/staging/prestage/prestage.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import { hurriedClock, patientClock, useAwsWorld } from './support/aws-world.ts';
import { bootDisk } from './support/boot-disk.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { LaunchRecord, launchOf } from './support/launcher-suite.ts';
import { commit, drain, openWithoutGrace, SourceVolume, sync } from './support/store-world.ts';
import { TurnQuota } from './support/turn-quota.ts';

const world = useAwsWorld();
const HOUR = 3_600_000;

/** A server of one volume of so many blocks of 512 KiB, all of them data. */
class Source {
  readonly name: string;
  readonly volume: SourceVolume;
  private ingest: Awaited<ReturnType<Store['beginIngest']>> | null = null;
  timeMs = 1e12;

  constructor(name: string, blocks: number) {
    this.name = name;
    this.volume = new SourceVolume('vda', blocks * BLOCK_BYTES, 'a'.repeat(32));
    this.volume.content.set(bootDisk({ table: 'mbr' }));
    for (let at = 1; at <= blocks; at += 1) this.volume.content[at * BLOCK_BYTES - 1] = at;
  }

  /** A point after single bytes were written. */
  async point(store: Store, ...writes: readonly number[]): Promise<string> {
    const { volume } = this;
    this.ingest ??= await store.beginIngest(this.name, [volume.description]);
    for (const at of writes) {
      volume.content[at] = (volume.content[at]! + 1) % 256;
      volume.dirty.add(Math.floor(at / 4096));
    }
    if (volume.epoch === 0) await sync(this.ingest, 0, volume);
    else await drain(this.ingest, 0, volume);
    this.timeMs += 1000;
    const { id } = await commit(this.ingest, [volume], this.timeMs);
    await store.seal(id);
    return id;
  }

  holds(snapshotId: string, content: Uint8Array = this.volume.content): boolean {
    return world.double.ebs.volume(snapshotId, content.length).equals(Buffer.from(content));
  }
}

let disk: FaultyDisk;
let store: Store;
let prestage: Prestage | null;
let quota: PutQuota;
beforeEach(async () => {
  disk = new FaultyDisk();
  store = await openWithoutGrace(disk, new Random(5));
  prestage = null;
  process.env.AWS_ENDPOINT_URL = world.double.endpoint;
  process.env.AWS_REGION = 'us-east-1';
});
afterEach(async () => {
  await prestage?.stop();
  await store.close();
  delete process.env.AWS_ENDPOINT_URL;
  delete process.env.AWS_REGION;
});

const settings = (over: Partial<PrestageSettings> = {}): PrestageSettings => ({
  // Nothing moves on by itself while a test runs.
  ...{ everyMs: 1000 * HOUR, servers: [], bytesPerSecond: 1e9 },
  plan: { region: null, encryption: null, tags: {} },
  ...over,
});

async function open(
  over: Partial<PrestageSettings> | null = {},
  given: PutQuota = new PutQuota(hurriedClock, { putsPerSecond: 1e6 }),
): Promise<Prestage> {
  quota = given;
  const ports = {
    ...{ clock: hurriedClock, log: silentLog, disk: disk.mount(), folder: '/data', store, quota },
    newId: () => randomBytes(4).toString('hex'),
  };
  prestage = await Prestage.open(ports, over === null ? null : settings(over));
  prestage.start();
  return prestage;
}

const of = (server: string) => prestage!.list().servers.find((each) => each.server === server);
const isAt = (server: string, point: string) =>
  expect.poll(() => of(server)?.volumes[0]?.point, { interval: 5 }).toBe(point);
const settled = (server: string) =>
  expect.poll(() => of(server)?.state, { interval: 5 }).toBe('current');
/** A server whose chain is at its first point. */
async function chained(blocks: number): Promise<{ web: Source; first: string }> {
  const web = new Source('web1', blocks);
  const first = await web.point(store);
  await open();
  await isAt('web1', first);
  await settled('web1');
  return { web, first };
}

const count = (call: string) => world.double.calls.filter((name) => name === call).length;
const headOf = (server: string) => of(server)!.volumes[0]!.snapshotId!;
const snapshots = () => [...world.double.ebs.snapshots.keys()];

/** Opens a chain that has come to the server's first point. */
async function isReadyAt(server: string, source: Source): Promise<void> {
  const first = await source.point(store);
  await open();
  await isAt(server, first);
  await settled(server);
}

/** A drill of a point as staging makes it, up to the instance; then it is stopped and cleaned up. */
async function drill(point: string, server: string): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'understudy-prestage-'));
  const launcher = createEc2Launcher(patientClock, { quota, chains: prestage! });
  const given = { plan: { instanceType: 'm6i.large', subnetId: 'subnet-0a' }, verify: 'none' };
  const of = await store.point(point);
  const openImage = (volume: string) => store.openImage(point, volume);
  const record = new LaunchRecord();
  const stop = new AbortController();
  try {
    const options = await launcher.check(given, of, openImage, 'drill');
    const at = {
      ...{ launcher, root, point: of, options, isLasting: true, openImage },
      imageAddress: () => Promise.reject(new Error('not asked for')),
      close: async () => undefined,
    };
    const launch = launchOf(at, record, options, {
      stop: stop.signal,
      leave: new AbortController().signal,
    });
    const up = async () => stop.abort();
    await launcher.run({ ...launch, server, clock: patientClock, up });
    await launcher.clean(record.made);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

describe('a chain', () => {
  it('follows the newest point by what differs, and a launch uploads the last difference alone', async () => {
    const { web } = await chained(12);
    expect(of('web1')).toMatchObject({ putBlocks: 12, error: null, isOn: true });
    const second = await web.point(store, 10, 3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 9000);
    await prestage!.run('web1');
    await isAt('web1', second);
    await settled('web1');
    expect(of('web1')).toMatchObject({ putBlocks: 2 });
    expect(web.holds(headOf('web1'))).toBe(true);
    expect(snapshots()).toEqual([headOf('web1')]);

    const third = await web.point(store, 7 * BLOCK_BYTES + 5);
    const before = count('PutSnapshotBlock');
    await drill(third, 'web1');
    expect(count('PutSnapshotBlock') - before).toBe(1);
    // The drill took all of its own away, and nothing of the chain.
    await settled('web1');
    expect(snapshots()).toEqual([headOf('web1')]);
    // And one of the very point that the chain has uploads nothing.
    const held = of('web1')!.volumes[0]!.point!;
    const puts = count('PutSnapshotBlock');
    await drill(held, 'web1');
    expect(count('PutSnapshotBlock')).toBe(puts);
  });

  it('that is asked for a turn while one runs makes another one, for what has come meanwhile', async () => {
    const web = new Source('web1', 2);
    await web.point(store);
    const held = new PutQuota(hurriedClock, { putsPerSecond: 1e6 });
    const goesOn = Promise.withResolvers<void>();
    const { take, room } = held.backgroundLane();
    held.backgroundLane = () => ({ room, take: (stop) => goesOn.promise.then(() => take(stop)) });
    await open({}, held);
    await expect.poll(() => count('StartSnapshot')).toBe(1);
    const second = await web.point(store, 5);
    await prestage!.run('web1');
    goesOn.resolve();
    await isAt('web1', second);
    expect(web.holds(headOf('web1'))).toBe(true);
  });

  it('follows the point that was committed last, though the clock of its machine was set back', async () => {
    const web = new Source('web1', 4);
    await isReadyAt('web1', web);
    web.timeMs -= HOUR;
    const last = await web.point(store, 10);
    await prestage!.run('web1');
    await isAt('web1', last);
    await settled('web1');
    expect(web.holds(headOf('web1'))).toBe(true);
  });

  it('holds its point against retention, also after a restart, and lets go of the former one', async () => {
    const { web, first } = await chained(4);
    const second = await web.point(store, 5);
    expect(await store.applyRetention({ drop: [first] })).toEqual([]);
    await prestage!.stop();
    world.double.fault = () => ({ kind: 'refuse', status: 503, type: 'ServiceUnavailable' });
    await open();
    expect(await store.applyRetention({ drop: [first] })).toEqual([]);
    world.double.fault = () => undefined;
    await isAt('web1', second);
    await settled('web1');
    expect(of('web1')).toMatchObject({ putBlocks: 1 });
    await web.point(store, 6);
    expect(await store.applyRetention({ drop: [first] })).toHaveLength(1);
    await prestage!.stop();
    expect(await store.applyRetention({ drop: [second] })).toHaveLength(1);
  });

  /** So many of `blocks` are put, from the first one on without a gap. */
  function unbroken(blocks: readonly number[]): number {
    let next = 0;
    while (blocks.includes(next)) next += 1;
    return next;
  }

  interface Interrupted {
    readonly point: string;
    puts(): number;
    /** How many of the first upload's have to be put from then on, at least and at most. */
    readonly left: readonly [least: number, most: number];
  }

  /** Is interrupted when some of `web`'s blocks are put, the first one among them. */
  async function interrupted(web: Source): Promise<Interrupted> {
    const point = await web.point(store);
    const some = Promise.withResolvers<void>();
    const { ebs } = world.double;
    const held = () => [...ebs.snapshots.values()].flatMap(({ blocks }) => [...blocks.keys()]);
    let puts = 0;
    world.double.fault = (call) => {
      puts += call === 'PutSnapshotBlock' ? 1 : 0;
      if (puts >= 16 && held().includes(0)) some.resolve();
      return undefined;
    };
    const limits = { putsPerSecond: 1e6, backgroundPerSecond: 0.05 };
    await open({}, new TurnQuota(limits, 1, { launch: 0, background: 40 }, true));
    await some.promise;
    await prestage!.stop();
    // Whether the last one's answer was heard is open; what lies behind a gap is put again.
    const all = held();
    const left = [40 - unbroken(all), 40 - unbroken(all.slice(0, -1))] as const;
    const before = puts;
    return { point, puts: () => puts - before, left };
  }

  it('interrupted in the middle of an upload, goes on with it after a restart', async () => {
    const web = new Source('web1', 40);
    const { point, puts, left } = await interrupted(web);
    await open();
    await isAt('web1', point);
    expect(count('StartSnapshot')).toBe(1);
    expect(puts()).toBeGreaterThanOrEqual(left[0]);
    expect(puts()).toBeLessThanOrEqual(left[1]);
    expect(left[1]).toBeLessThan(40);
    expect(web.holds(headOf('web1'))).toBe(true);
  });

  it('goes on with an upload though newer points have come: they take the difference', async () => {
    const web = new Source('web1', 40);
    const { point, puts, left } = await interrupted(web);
    const newer = await web.point(store, 5);
    await open();
    await isAt('web1', point);
    await settled('web1');
    await prestage!.run('web1');
    await isAt('web1', newer);
    expect(count('StartSnapshot')).toBe(2);
    // And the one that differs.
    expect(puts()).toBeGreaterThanOrEqual(left[0] + 1);
    expect(puts()).toBeLessThanOrEqual(left[1] + 1);
    expect(web.holds(headOf('web1'))).toBe(true);
  });

  it('interrupted, and then given a key, begins anew under that key', async () => {
    const web = new Source('web1', 40);
    const { point } = await interrupted(web);
    const kmsKeyArn = 'arn:aws:kms:us-east-1:123456789012:key/abc';
    await open({ plan: { region: null, encryption: { kmsKeyArn }, tags: {} } });
    await isAt('web1', point);
    expect(world.double.ebs.snapshots.get(headOf('web1'))).toMatchObject({ kmsKeyArn });
    await settled('web1');
    expect(snapshots()).toEqual([headOf('web1')]);
  });

  it('begins anew when its snapshot has vanished, or its point has gone', async () => {
    const { web, first } = await chained(4);
    const lost = headOf('web1');
    world.double.ebs.snapshots.delete(lost);
    await prestage!.run('web1');
    await expect.poll(() => headOf('web1')).not.toBe(lost);
    expect(web.holds(headOf('web1'))).toBe(true);
    await settled('web1');
    await prestage!.stop();
    // Nobody holds the point while staging does not run.
    const second = await web.point(store, 5);
    expect(await store.applyRetention({ drop: [first] })).toHaveLength(1);
    await open();
    await isAt('web1', second);
    await settled('web1');
    expect(of('web1')).toMatchObject({ putBlocks: 4 });
    expect(web.holds(headOf('web1'))).toBe(true);
  });

  it('under another key is another chain; in another region the former one is removed', async () => {
    const web = new Source('web1', 4);
    const point = await web.point(store);
    const kmsKeyArn = 'arn:aws:kms:us-east-1:123456789012:key/abc';
    await open();
    await isAt('web1', point);
    await settled('web1');
    const plain = headOf('web1');
    await prestage!.stop();
    const plan = { region: 'us-east-1', encryption: { kmsKeyArn }, tags: { team: 'a' } };
    await open({ plan });
    await expect.poll(() => headOf('web1')).not.toBe(plain);
    await settled('web1');
    const [only] = world.double.ebs.snapshots.values();
    expect(only).toMatchObject({ id: headOf('web1'), kmsKeyArn, tags: { team: 'a' } });
    await prestage!.stop();
    await open({ plan: { ...plan, region: 'eu-central-1' } });
    await expect.poll(() => headOf('web1')).not.toBe(only!.id);
    await settled('web1');
    expect(snapshots()).toEqual([headOf('web1')]);
  });
});

describe('switches', () => {
  it('only the servers that were named are on; a switch stays over a restart', async () => {
    const [web, db] = [new Source('web1', 2), new Source('db1', 2)];
    const point = await web.point(store);
    await db.point(store);
    await open({ servers: ['web1'] });
    await isAt('web1', point);
    await expect.poll(() => of('db1')?.state).toBe('off');
    expect(await prestage!.switch('db1', true)).toMatchObject({ isOn: true });
    await settled('db1');
    await prestage!.switch('web1', false);
    await prestage!.stop();
    await open({ servers: ['web1'] });
    await settled('db1');
    expect(of('web1')).toMatchObject({ state: 'off', isOn: false, nextMs: null });
    expect(snapshots()).toHaveLength(2);
    await expect(prestage!.run('web1')).rejects.toThrow('switched off');
    const ended = await prestage!.switch('web1', false, true);
    expect(ended.volumes).toEqual([]);
    expect(snapshots()).toEqual([headOf('db1')]);
    await expect(prestage!.switch('none', true)).rejects.toMatchObject({
      code: 'ERR_SERVER_NOT_FOUND',
    });
  });

  it('without --ec2-prestage nothing moves on, and what is there is lent all the same', async () => {
    const { web, first } = await chained(4);
    await prestage!.stop();
    const second = await web.point(store, 5);
    await open(null);
    expect(prestage!.find('web1')).toBe(null);
    await expect(prestage!.switch('web1', true)).rejects.toMatchObject({
      code: 'ERR_EC2_PRESTAGE_OFF',
    });
    const before = count('PutSnapshotBlock');
    await drill(second, 'web1');
    expect(count('PutSnapshotBlock') - before).toBe(1);
    expect(of('web1')!.volumes[0]!.point).toBe(first);
  });
});

describe('what goes wrong', () => {
  it('is told, does not stop the others, and is tried again', async () => {
    const [web, db] = [new Source('web1', 2), new Source('db1', 2)];
    const points = [await web.point(store), await db.point(store)];
    let isDenied = true;
    world.double.fault = (call) =>
      isDenied && call === 'StartSnapshot' && count('StartSnapshot') % 2 === 1
        ? { kind: 'refuse', status: 403, type: 'AccessDeniedException' }
        : undefined;
    await open();
    const failed = () => prestage!.list().servers.find(({ state }) => state === 'failing');
    await expect.poll(() => failed()?.failures ?? 0).toBeGreaterThan(0);
    expect(failed()).toMatchObject({
      error: { code: 'ERR_AWS_DENIED', message: expect.stringContaining('StartSnapshot') },
      nextMs: expect.any(Number),
    });
    isDenied = false;
    await isAt('web1', points[0]!);
    await isAt('db1', points[1]!);
    await settled('web1');
    expect(of('web1')).toMatchObject({ failures: 0, error: null });
  });

  it('records that cannot be read stop nothing else', async () => {
    const [web, db] = [new Source('web1', 2), new Source('db1', 2)];
    await web.point(store);
    const point = await db.point(store);
    const write = async (name: string, text: string) => {
      const mounted = disk.mount();
      await mounted.makeDirectory('/data/ec2');
      const file = await mounted.open(`/data/ec2/${name}`, 'write');
      await file.write([Buffer.from(text)], 0);
      await file.close();
    };
    await write('web1.chain', '{"understudy":"ec2-chain","vers');
    await open();
    await isAt('db1', point);
    await expect.poll(() => of('web1')?.error?.code).toBe('ERR_EC2_RECORD');
    await prestage!.stop();
    // What was switched off is not known any more: nothing that costs money is on.
    await write('switches.json', 'x');
    await open();
    expect([of('web1')?.isOn, of('db1')?.isOn]).toEqual([false, false]);
    await prestage!.switch('db1', true);
    await settled('db1');
  });

  it('a server without a whole point waits for one', async () => {
    const web = new Source('web1', 2);
    await store.beginIngest('web1', [web.volume.description]).then((ingest) => ingest.close());
    await open();
    const first = await web.point(store);
    await isAt('web1', first);
  });

  it('a chain that a launch has is neither moved on nor deleted', async () => {
    const web = new Source('web1', 4);
    const first = await web.point(store);
    await open({ everyMs: 20_000 });
    await isAt('web1', first);
    const chain = await prestage!.borrow('web1', null);
    expect(await prestage!.borrow('web1', 'eu-west-1')).toBe(null);
    const second = await web.point(store, 5);
    const changing = () => world.double.calls.filter((call) => !call.startsWith('Describe')).length;
    const calls = changing();
    await new Promise((done) => setTimeout(done, 200));
    expect(changing()).toBe(calls);
    expect(chain!.headOf('vda')).toMatchObject({ point: first });
    await expect(prestage!.switch('web1', false, true)).rejects.toMatchObject({
      code: 'ERR_EC2_CHAIN_IN_USE',
    });
    await prestage!.switch('web1', true);
    chain!.release();
    chain!.release();
    await isAt('web1', second);
  });
});

describe('the quota', () => {
  const slow = { putsPerSecond: 1e6, backgroundPerSecond: 0.05 };

  it('is shared: a huge server does not keep a small one waiting', async () => {
    const [huge, small] = [new Source('huge', 150), new Source('small', 5)];
    await huge.point(store);
    const point = await small.point(store);
    const turns = new TurnQuota(slow, 2, { launch: 0, background: 5 });
    await open({}, turns);
    await isAt('small', point);
    await expect
      .poll(() => Math.max(...turns.uploads.map(({ asked }) => asked)))
      .toBeGreaterThan(5);
    const few = turns.uploads.find(({ asked }) => asked === 5)!;
    // What was saved up goes to whoever asks first; from then on it is block by block in turn.
    const share = turns.turns.slice(1, turns.turns.lastIndexOf(few) + 1);
    expect(share.length).toBeGreaterThan(6);
    for (const [at, upload] of share.entries()) expect(upload).not.toBe(share[at + 1]);
  });

  it('goes to a launch first', async () => {
    const [huge, web] = [new Source('huge', 150), new Source('web1', 30)];
    await huge.point(store);
    const point = await web.point(store);
    const limits = { putsPerSecond: 0.03, backgroundPerSecond: 0.03 };
    const turns = new TurnQuota(limits, 2, { launch: 30, background: 150 });
    await open({ servers: ['huge'] }, turns);
    // The other one is under way: it has had what was saved up.
    await expect.poll(() => turns.turns.length).toBe(1);
    await drill(point, 'web1');
    const { askedAfter } = turns.uploads.find(({ kind }) => kind === 'launch')!;
    const share = turns.turns.slice(askedAfter, askedAfter + 30);
    expect(share.map(({ kind }) => kind)).toEqual(Array(30).fill('launch'));
    expect(askedAfter).toBe(1);
  });
});
