/**
 * Damage at staging, seen from end to end in virtual time: real agent, real session, real store. A check
 * finds it, the agent is sent away, comes back, begins a new generation and rescans; only what is hurt is
 * sent, points are whole again and go on coming.
 */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { FaultyDisk } from './disk.ts';
import { SimulatedNetwork } from './network.ts';
import { Random } from './random.ts';
import { SERVER, SourceHost } from './source-host.ts';
import { StagingHost } from './staging-host.ts';
import { FULL_SCHEME } from './tracker.ts';
import { VirtualClock } from './virtual-clock.ts';

const clock = new VirtualClock();
const random = new Random(77);
const disk = new FaultyDisk({ clock, latencyMs: () => 0.05 });
const network = new SimulatedNetwork(clock, random.fork());
const log = silentLog;
const world = { clock, network, log };
const source = new SourceHost({
  ...world,
  random: random.fork(),
  volumes: 1,
  sizeBytes: 4 * MIB,
  chains: 1,
  rules: FULL_SCHEME,
  onAcknowledged: () => undefined,
});
const staging = new StagingHost({ ...world, disk, random: random.fork() });

/** Drives virtual time while a call runs. */
async function through<T>(promise: Promise<T>): Promise<T> {
  let isDone = false;
  const settled = promise.finally(() => {
    isDone = true;
  });
  settled.catch(() => undefined);
  while (!isDone) await clock.runUntil(clock.monotonicMs() + 1);
  return settled;
}
const run = (ms: number) => clock.runUntil(clock.monotonicMs() + ms);
const points = () => through(staging.store!.points({ server: SERVER }));
const check = (readData: boolean) => through(staging.store!.check({ readData }));

describe('damage at staging', () => {
  it('makes the agent rescan: hurt contents come again, and replication goes on', async () => {
    void staging.start();
    source.burst(9000); // before the first pass: what is held are whole chunks
    await run(10_000);
    source.startAgent();
    await run(15_000);
    const [before] = await points();
    await through(staging.store!.seal(before!.id));
    const { generation } = before!.volumes[0]!;
    expect((await check(true)).findings).toEqual([]);
    const sound = disk.paths().filter((path) => path.endsWith('.pack'));
    const largest = sound.sort((a, b) => disk.size(b) - disk.size(a))[0]!;
    for (const part of [0.2, 0.4, 0.6]) {
      disk.flipBit(largest, Math.floor(disk.size(largest) * part));
    }
    const found = await check(true);
    const hurt = found.findings.filter((finding) => finding.points.includes(before!.id));
    expect(hurt.length).toBeGreaterThan(0);
    await run(30_000);
    expect(source.givenUp).toBeNull();
    expect(staging.failure).toBeNull();
    const [after] = await points();
    expect(after!.volumes[0]!.generation).not.toBe(generation);
    expect(Date.parse(after!.time)).toBeGreaterThan(Date.parse(before!.time));
    await through(staging.store!.seal(after!.id));
    await check(false);
    const image = await through(staging.store!.openImage(after!.id, before!.volumes[0]!.volume));
    expect(await through(image.read(0, image.sizeBytes))).toHaveLength(4 * MIB);
    image.close();
    const last = await check(true);
    // The point from before showed the same contents: it is whole again.
    expect(last.findings.flatMap((finding) => finding.points)).not.toContain(before!.id);
    const packsAfter = disk
      .paths()
      .filter((path) => path.endsWith('.pack') && !sound.includes(path));
    const grown = packsAfter.reduce((sum, path) => sum + disk.size(path), 0);
    const held = sound.reduce((sum, path) => sum + disk.size(path), 0);
    expect(grown).toBeLessThan(held);
  });
});
