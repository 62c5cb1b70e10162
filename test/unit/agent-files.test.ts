/**
 * Files as volumes, as they are used: put in each other's place, taken away, cut to nothing. What the path
 * names is what is replicated. The agent's core with the real engine, against the fake staging.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Agent, createAgent } from '../../src/agent/agent.ts';
import { createInlinePipeline } from '../../src/agent/pipeline.ts';
import { defaultSettings } from '../../src/agent/replication-state.ts';
import { runAgent } from '../../src/agent/run-agent.ts';
import { systemClock } from '../../src/base/clock.ts';
import type { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { alignedBuffer, createEngine, openDevice, openTracker } from '../../src/native/index.ts';
import { FakeStaging } from './support/fake-staging.ts';
import { createMemoryNetwork } from './support/memory-transport.ts';

const SIZE = MIB + 512;
let folder: string;
let path: string;
let content: Buffer;
let staging: FakeStaging;
let agent: Agent;
let givenUp: UnderstudyError | null;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-files-'));
  path = join(folder, 'volume');
  content = randomBytes(SIZE);
  writeFileSync(path, content);
  staging = new FakeStaging();
  givenUp = null;
  const network = createMemoryNetwork(systemClock);
  network.listen((connect) => staging.accept(connect));
  const device = openDevice(path);
  const { geometry } = device;
  const tracker = await openTracker({ backend: 'scan', volumes: [{ path, geometry }] });
  const buffers = Array.from({ length: 8 }, () => alignedBuffer(MIB));
  const times = { cutIntervalMs: 50, observeIntervalMs: 20, retryVolumeMs: 50 };
  agent = createAgent({
    clock: systemClock,
    log: silentLog,
    random: () => 0.5,
    dialer: network.dialer,
    pipeline: createInlinePipeline(buffers),
    buffers,
    createEngine: (events) => createEngine({ tracker, buffers, events }),
    volumes: [{ name: path, device, tracked: tracker.volumes[0]!, isScanned: true }],
    identity: { server: 'files', hardwareId: 'h', bootId: 'b', agentVersion: '1' },
    pid: 1,
    settings: { ...defaultSettings, ...times, backoffBaseMs: 10, syncBuffers: 2 },
    bandwidth: 0,
    onGivenUp: (error) => {
      givenUp = error;
    },
  });
  agent.start();
  await pointOf(content);
});

afterEach(async () => {
  await agent.close();
  rmSync(folder, { recursive: true });
});

/** Resolves once there is a point with this content. */
async function pointOf(wanted: Buffer): Promise<void> {
  const isThere = () => {
    const image = staging.points.at(-1)?.images.get(path);
    return image !== undefined && wanted.equals(image);
  };
  while (!isThere()) {
    if (givenUp !== null) throw givenUp;
    await sleep(10);
  }
}

it('a file without a byte is refused before anything else is done with it', async () => {
  const empty = join(folder, 'empty');
  writeFileSync(empty, '');
  const running = runAgent({
    ...{ server: 'files', volumes: [empty], dialer: createMemoryNetwork(systemClock).dialer },
    ...{ cutIntervalMs: 1000, tracker: 'scan', bandwidth: 0, log: silentLog, runDirectory: folder },
  });
  await expect(running).rejects.toMatchObject({ code: 'ERR_DEVICE_NOT_VOLUME' });
});

it('a file that is put in the place of another one is replicated from then on', async () => {
  const next = randomBytes(SIZE);
  writeFileSync(join(folder, 'next'), next);
  renameSync(join(folder, 'next'), path);
  await pointOf(next);
});

it('of a file that is gone no points are made, until there is one again', async () => {
  rmSync(path);
  while (agent.status().volumes[0]!.state !== 'stalled') await sleep(10);
  const before = staging.points.length;
  await sleep(300);
  expect(staging.points.length).toBe(before);
  const next = randomBytes(SIZE + MIB);
  writeFileSync(path, next);
  await pointOf(next);
});

it('a file that is cut to nothing waits for content', async () => {
  truncateSync(path, 0);
  while (agent.status().volumes[0]!.state !== 'stalled') await sleep(10);
  const next = randomBytes(SIZE);
  writeFileSync(path, next);
  await pointOf(next);
  expect(givenUp).toBeNull();
});
