/**
 * The scrub in virtual time, over the real store: all packs in a period, no faster than allowed, beside
 * other calls; a restart goes on where it was; damage is told, kept and shown, and heals.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { Scrubber } from '../../src/staging/scrubber.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { StoreLife, tinySettings } from './support/store-life.ts';
import { pieceOf } from './support/store-world.ts';

const DAY_MS = 86_400_000;
const settings = { ...tinySettings, segmentBytes: 100_000, smallPackBytes: 0, baseAfterDeltas: 99 };
let disk: FaultyDisk;
let life: StoreLife;
let lines: string[];
let scrubber: Scrubber;

async function start(everyMs = DAY_MS, bytesPerSecond = 0): Promise<Scrubber> {
  const log = createLog({ clock: life.clock, level: 'info', sink: (line) => lines.push(line) });
  scrubber = await Scrubber.open({
    ...{ clock: life.clock, log, store: life.store!, disk: disk.mount(), folder: '/data' },
    ...{ everyMs, bytesPerSecond },
    onBroken: (error) => {
      throw error;
    },
  });
  return scrubber;
}

/** Lets virtual time pass, and what waits for the disk in between. */
async function pass(ms: number, steps = 20): Promise<void> {
  for (let i = 0; i < steps; i += 1) {
    await life.clock.runUntil(life.clock.monotonicMs() + ms / steps);
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  }
}

beforeEach(async () => {
  disk = new FaultyDisk();
  life = new StoreLife(disk, 5);
  lines = [];
  await life.open(settings);
  const ingest = await life.connect();
  const volume = life.volumes[0]!;
  for (let chunk = 0; chunk < 8; chunk += 1) {
    volume.content.set(life.random.bytes(CHUNK_BYTES), chunk * CHUNK_BYTES);
    for (let block = 0; block < 16; block += 1) volume.dirty.add(chunk * 16 + block);
    await life.store!.seal((await life.writeAndCommit(ingest, 0)).id);
  }
  await ingest.close();
});

const packs = () => disk.files('/data/repo/packs');
const damagedPoints = async () =>
  (await life.store!.points({ order: 'oldest' }))
    .filter(({ isDamaged }) => isDamaged)
    .map(({ id }) => id);
const packBytes = () => packs().reduce((sum, path) => sum + disk.peek(path).length, 0);

describe('scrub', () => {
  it('reads all packs once a period, and says when it has', async () => {
    await start();
    await pass(1000);
    expect(scrubber.status).toMatchObject({
      state: 'waiting',
      packs: packs().length,
      findings: [],
    });
    const first = scrubber.status.finished!;
    expect(first.packs).toBe(packs().length);
    await pass(DAY_MS / 2);
    expect(scrubber.status.finished).toEqual(first);
    await pass(DAY_MS);
    expect(scrubber.status.finished!.startedMs - first.startedMs).toBeGreaterThanOrEqual(DAY_MS);
    await scrubber.stop();
  });

  it('reads no faster than it may, and lets everything else go on', async () => {
    await start(DAY_MS, packBytes() / 1000);
    await pass(50_000, 500);
    // It reads the first pack at once and pays for it with time.
    expect(scrubber.status).toMatchObject({ state: 'reading', finished: null });
    expect(scrubber.status.packs).toBeLessThan(packs().length);
    // The lane is free: a check and a collection end while it reads.
    expect((await life.store!.check({ readData: false })).findings).toEqual([]);
    await life.store!.collect();
    expect(scrubber.status.state).toBe('reading');
    await pass(5_000_000, 500);
    expect(scrubber.status.finished?.packs).toBe(packs().length);
    await scrubber.stop();
  });

  it('goes on where it was after a restart', async () => {
    await start(DAY_MS, packBytes() / 100);
    await pass(50_000, 500);
    await scrubber.stop();
    const { packs: before, startedMs } = scrubber.status;
    expect(before).toBeGreaterThan(0);
    await start();
    await pass(1000);
    expect(scrubber.status.finished).toMatchObject({ startedMs, packs: packs().length });
    await scrubber.stop();
  });

  it('tells damage, the points that it hurts, keeps both over a restart, and sees that it has healed', async () => {
    const [volume] = life.volumes;
    const stored = Buffer.from(pieceOf(volume!.chunk(2)).verified!.stored);
    const path = packs().find((one) =>
      Buffer.from(disk.peek(one)).includes(stored.subarray(0, 64)),
    )!;
    const at = Buffer.from(disk.peek(path)).indexOf(stored.subarray(0, 64)) + 80;
    disk.flip(path, at);
    const demanded: string[] = [];
    life.store!.watchRescans((server) => demanded.push(server));
    await start();
    await pass(1000);
    const { findings, hurtPoints } = scrubber.status;
    expect(findings.map(({ kind }) => kind)).toEqual(['damaged-piece']);
    const hurt = life.acknowledged.slice(2).map(({ id }) => id);
    expect(hurtPoints).toEqual(hurt);
    expect(demanded).toEqual(['web']);
    expect(lines.filter((line) => line.includes('damage was found')).length).toBeGreaterThan(0);
    expect(await damagedPoints()).toEqual(hurt);
    await scrubber.stop();
    await life.store!.close();
    disk.reopen();
    await life.open(settings);
    expect(await damagedPoints()).toEqual(hurt);
    disk.flip(path, at);
    await start();
    expect(scrubber.status.hurtPoints).toEqual(hurt);
    await life.store!.check({ readData: true });
    await pass(2 * 3_600_000);
    expect(scrubber.status.findings).toEqual([]);
    expect(await damagedPoints()).toEqual([]);
    await scrubber.stop();
  });

  it('does nothing where it is off, and begins anew where its file is damaged', async () => {
    await start(0);
    await pass(DAY_MS);
    expect(scrubber.status).toMatchObject({ state: 'off', startedMs: null });
    await scrubber.stop();
    disk.poke('/data/scrub', Buffer.from('{'));
    await start();
    await pass(1000);
    expect(scrubber.status.finished).not.toBeNull();
    await scrubber.stop();
  });
});
