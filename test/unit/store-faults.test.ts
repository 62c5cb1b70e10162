/**
 * A bad day short of a power cut: a full disk, calls that fail, flipped bits, files that are cut short or
 * gone. What was acknowledged stays (P4); what cannot be trusted is refused by one clear code; a check
 * names what is damaged and the points that it hurts.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { openRepository } from '../../src/store/offline.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { keys } from './support/key-mode.ts';
import { readsAs, StoreLife, tinySettings } from './support/store-life.ts';
import { drain } from './support/store-world.ts';

const codeOf = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

let disk: FaultyDisk;
let life: StoreLife;
beforeEach(() => {
  disk = new FaultyDisk();
  life = new StoreLife(disk, 5);
  life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
});

/** Large segments, so that everything of a short life is still in the journal. */
const large = { ...tinySettings, segmentBytes: 64 * 1024 * 1024 };

async function expectPoints(): Promise<void> {
  for (const point of life.acknowledged) expect(await readsAs(life.store!, point)).toBe(true);
  expect((await life.store!.check({ readData: true })).findings).toEqual([]);
}

/** Two points, the process killed: one segment, acknowledged, and nothing sealed. */
async function stagedLife(): Promise<string> {
  await life.open(large);
  const ingest = await life.connect();
  await life.writeAndCommit(ingest);
  await life.writeAndCommit(ingest);
  disk.reopen();
  return '/data/journal/0000000000000001.segment';
}

/** Three sealed points, the store closed. */
async function sealedLife(): Promise<void> {
  await life.open();
  const ingest = await life.connect();
  for (let i = 0; i < 3; i += 1) {
    const { id } = await life.writeAndCommit(ingest);
    await life.store!.seal(id);
  }
  await life.store!.close();
  disk.reopen();
}

describe('journal after a restart', () => {
  it('is whole when the process was killed', async () => {
    await stagedLife();
    await life.open(large);
    await expectPoints();
  });

  it('refuses a flipped bit anywhere in what was acknowledged', async () => {
    const segment = await stagedLife();
    const size = disk.peek(segment).length;
    const random = new Random(3);
    for (let i = 0; i < 60; i += 1) {
      const offset = i < 10 ? i * 8 : random.below(size);
      const bit = random.below(8);
      disk.flip(segment, offset, bit);
      const code = await codeOf(life.open(large));
      expect(code, `bit ${bit} of byte ${offset}`).toMatch(/ERR_JOURNAL_DAMAGED|ERR_DATA_FORMAT/);
      disk.reopen();
      disk.flip(segment, offset, bit);
    }
    await life.open(large);
    await expectPoints();
  });

  it('refuses a segment that was cut short or is gone, and a watermark that is gone', async () => {
    const segment = await stagedLife();
    const whole = disk.peek(segment).slice();
    for (const length of [0, 30, 200, whole.length - 1]) {
      disk.poke(segment, whole.subarray(0, length));
      expect(await codeOf(life.open(large))).toBe('ERR_JOURNAL_DAMAGED');
      disk.reopen();
    }
    disk.poke(segment, whole);
    const watermark = '/data/journal/watermark';
    const mark = disk.peek(watermark).slice();
    disk.poke(watermark, new Uint8Array(8192).fill(1));
    expect(await codeOf(life.open(large))).toBe('ERR_JOURNAL_DAMAGED');
    disk.reopen();
    disk.lose(watermark);
    expect(await codeOf(life.open(large))).toBe('ERR_JOURNAL_DAMAGED');
    disk.reopen();
    await (await disk.open(watermark, 'create')).close();
    disk.poke(watermark, mark);
    disk.lose(segment);
    expect(await codeOf(life.open(large))).toBe('ERR_JOURNAL_DAMAGED');
  });

  it('takes the other slot of the watermark when segments have gone since it was written', async () => {
    await sealedLife();
    expect(disk.files('/data/journal').length).toBeGreaterThan(0);
    disk.reopen();
    const all = disk.files('/data').map((path) => [path, disk.peek(path).slice()] as const);
    for (const slot of [0, 4096]) {
      for (let at = 0; at < 64; at += 1) disk.flip('/data/journal/watermark', slot + at);
      await life.open();
      for (const point of life.acknowledged) expect(await readsFine(life.store!, point)).toBe(true);
      await life.store!.close();
      disk.reopen();
      for (const path of disk.files('/data')) disk.lose(path);
      for (const [path, bytes] of all) {
        await (await disk.open(path, 'create')).close();
        disk.poke(path, bytes);
      }
    }
  });

  it('cuts a torn tail off above the watermark', async () => {
    for (let kind = 0; kind < 4; kind += 1) {
      disk = new FaultyDisk();
      life = new StoreLife(disk, 6 + kind);
      const segment = await stagedLife();
      const whole = disk.peek(segment).slice();
      const noise = new Random(kind).bytes(300);
      const tail = [new Uint8Array(1), new Uint8Array(500), noise, whole.slice(56, 456)][kind]!;
      disk.poke(segment, Buffer.concat([whole, tail]));
      await life.open(large);
      await expectPoints();
      const ingest = await life.connect();
      await life.writeAndCommit(ingest);
      await expectPoints();
      disk.reopen();
      await life.open(large);
      await expectPoints();
    }
  });

  it('keeps what an open epoch had, without sealing and across many restarts', async () => {
    await life.open();
    const ingest = await life.connect();
    await ingest.durable();
    for (let i = 0; i < 4; i += 1) {
      disk.reopen();
      await life.open();
      const again = await life.store!.beginIngest(
        'web',
        life.volumes.map(({ description }) => description),
      );
      expect(again.positions.map(({ syncedChunks }) => syncedChunks)).toEqual([10, 3]);
      await again.close();
    }
    const last = await life.connect();
    await life.writeAndCommit(last);
    await expectPoints();
  });
});

describe('full disk', () => {
  it('loses nothing that was acknowledged, says so, and goes on when there is room', async () => {
    await life.open();
    let ingest = await life.connect();
    let refused = 0;
    for (let round = 0; round < 25; round += 1) {
      disk.capacityBytes = disk.usedBytes + life.random.below(200_000);
      try {
        await life.writeAndCommit(ingest, 12);
        if (round % 3 === 0) await life.store!.seal(life.acknowledged.at(-1)!.id);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_DISK_FULL' });
        refused += 1;
      }
      disk.capacityBytes = Number.POSITIVE_INFINITY;
      await ingest.close();
      ingest = await life.connect();
      if (round % 8 === 7) await expectPoints();
    }
    expect(refused).toBeGreaterThan(3);
    await life.clock.runUntil(life.clock.monotonicMs() + 60_000);
    await life.writeAndCommit(ingest);
    await expectPoints();
    await life.store!.close();
    disk.reopen();
    await life.open();
    await expectPoints();
  });
});

describe('a call that fails', () => {
  it('never acknowledges what may be lost: the store stops, and a restart has it all', async () => {
    const quiet = new StoreLife(new FaultyDisk(), 5);
    await quiet.run();
    for (let call = 40; call < quiet.disk.calls; call += 23) {
      disk = new FaultyDisk();
      life = new StoreLife(disk, 5);
      disk.failAt(call, 'ERR_DISK_IO');
      const error = await life.run().then(
        () => null,
        (reason: unknown) => reason,
      );
      if (error !== null) {
        expect(error, `call ${call}: ${disk.lastCall}`).toBeInstanceOf(UnderstudyError);
        expect((error as UnderstudyError).code).toMatch(/ERR_STORE_FAILED|ERR_DISK_IO/);
      }
      disk.reopen();
      await life.open();
      const listed = new Set((await life.store!.points({})).map(({ id }) => id));
      for (const point of life.acknowledged) {
        if (life.dropping.has(point.id) && !listed.has(point.id)) continue;
        expect(await readsAs(life.store!, point), `call ${call}`).toBe(true);
      }
      expect((await life.store!.check({ readData: true })).findings).toEqual([]);
    }
  });

  it('is said once and to everybody: after a failed sync nothing is taken any more', async () => {
    await life.open(large);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    const pending = ingest.durable();
    await pending;
    life.volumes[0]!.write(life.random, 0, 5000);
    const { calls } = disk;
    await drain(ingest, 0, life.volumes[0]!);
    disk.failAt(calls + 2, 'ERR_DISK_IO');
    expect(await codeOf(ingest.durable())).toBe('ERR_STORE_FAILED');
    expect(await codeOf(ingest.durable())).toBe('ERR_STORE_FAILED');
    expect(await codeOf(drain(ingest, 0, life.volumes[0]!))).toBe('none');
    life.volumes[0]!.write(life.random, 0, 5000);
    expect(await codeOf(drain(ingest, 0, life.volumes[0]!))).toBe('ERR_STORE_FAILED');
  });
});

describe('check', () => {
  it('names what is damaged, whatever it is, and the points that it hurts', async () => {
    await sealedLife();
    const { acknowledged } = life;
    const files = disk.files('/data/repo').filter((path) => !path.endsWith('format.json'));
    const all = disk.files('/data');
    const random = new Random(9);
    let hurting = 0;
    for (const path of files) {
      const size = disk.peek(path).length;
      for (let i = 0; i < 6; i += 1) {
        const offset = random.below(size);
        disk.flip(path, offset);
        const offline = await openRepository('/data', silentLog, disk.mount(), keys);
        const { findings } = await offline.check({ readData: true });
        const hurt = new Set(findings.flatMap(({ points }) => points));
        for (const point of acknowledged) {
          const isFine = await readsFine(offline, point);
          if (isFine === false) expect(hurt, `${path} at ${offset}`).toContain(point.id);
          if (hurt.has(point.id) && isFine === false) hurting += 1;
        }
        await offline.close();
        expect(disk.files('/data'), 'reading changes nothing').toEqual(all);
        disk.flip(path, offset);
      }
    }
    expect(hurting).toBeGreaterThan(10);
  });

  it('finds what is missing', async () => {
    await sealedLife();
    const packs = disk.files('/data/repo/packs');
    const deltas = disk.files('/data/repo/deltas');
    // A base stands for the first delta; the last one of a volume has nobody to stand for it.
    const isLast = (path: string) => path.endsWith('0000000002-0000000003.delta');
    expect(deltas.filter(isLast)).toHaveLength(2);
    // Small ones hold tables of bases, for which deltas stand.
    const largest = packs.reduce((a, b) => (disk.peek(a).length >= disk.peek(b).length ? a : b));
    for (const path of [largest, ...deltas.filter(isLast)]) {
      const bytes = disk.peek(path).slice();
      disk.lose(path);
      const offline = await openRepository('/data/repo', silentLog, disk.mount(), keys);
      const { findings } = await offline.check({ readData: false });
      expect(
        findings.some(({ kind }) => kind.startsWith('missing')),
        path,
      ).toBe(true);
      expect(findings.flatMap(({ points }) => points).length).toBeGreaterThan(0);
      await offline.close();
      await (await disk.open(path, 'create')).close();
      disk.poke(path, bytes);
    }
  });

  it('is clean where nothing is wrong, with a service and without', async () => {
    await sealedLife();
    const offline = await openRepository('/data/repo', silentLog, disk.mount(), keys);
    expect((await offline.check({ readData: true })).findings).toEqual([]);
    for (const point of life.acknowledged) expect(await readsFine(offline, point)).toBe(true);
    await offline.close();
  });
});

type Readable = Pick<Awaited<ReturnType<typeof openRepository>>, 'openImage'>;

/** True: reads right. False: fails by a code of corruption. Wrong bytes are never accepted. */
async function readsFine(
  from: Readable,
  point: StoreLife['acknowledged'][number],
): Promise<boolean> {
  try {
    for (const [volume, content] of point.contents) {
      const image = await from.openImage(point.id, volume);
      const read = await image.read(0, content.length);
      image.close();
      expect(Buffer.compare(read, content)).toBe(0);
    }
    return true;
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    expect(['corruption', 'operational']).toContain(error.spec.kind);
    return false;
  }
}
