/**
 * Retention of the service as it runs, by its API: holds, policies of servers, a plan, a run at once, and
 * a clock that leapt while the service was down.
 */

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { parseKeepRules } from '../../src/model/keep-rules.ts';
import type {
  ApiKeepPolicy,
  ApiPoints,
  ApiRetentionPlan,
  ApiServer,
} from '../../src/staging/api-types.ts';
import { type RunningStaging, runStaging } from '../../src/staging/service.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { runLine } from './support/command-line.ts';
import { commit, SourceVolume, sync } from './support/store-world.ts';

const root = mkdtempSync(join(tmpdir(), 'understudy-retention-'));
afterAll(() => rmSync(root, { recursive: true }));
const running: RunningStaging[] = [];
afterEach(async () => {
  for (const staging of running.splice(0)) await staging.close();
});

const DAY = 86_400_000;

/** A data directory with points of `ages` (ms before now), oldest first. */
async function makePoints(dataDir: string, ages: readonly number[]): Promise<void> {
  const store = await openNodeStore(dataDir, silentLog);
  const volume = new SourceVolume('/dev/a', 2 * CHUNK_BYTES, 'a'.repeat(32));
  const ingest = await store.beginIngest('web', [volume.description]);
  await sync(ingest, 0, volume);
  for (const age of ages) {
    volume.content.set(randomBytes(CHUNK_BYTES));
    await sync(ingest, 0, volume);
    await commit(ingest, [volume], systemClock.wallMs() - age);
  }
  await ingest.close();
  await store.close();
}

async function start(dataDir: string, aheadMs = 0, trustClock = false) {
  const clock: Clock = { ...systemClock, wallMs: () => systemClock.wallMs() + aheadMs };
  const staging = await runStaging({
    ...{ dataDir, listen: '127.0.0.1:0', keep: parseKeepRules('all=1h'), log: silentLog },
    ...{ clock, trustClock },
  });
  running.push(staging);
  const token = readFileSync(join(dataDir, 'token'), 'utf8').trim();
  const call = async <T>(method: string, path: string, body?: object) => {
    const response = await fetch(staging.url + path, {
      method,
      headers: { authorization: `Bearer ${token}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, value: (await response.json()) as T };
  };
  return { staging, call };
}

const stop = async () => running.pop()!.close();
const ages = [5 * DAY, 4 * DAY, 3 * DAY, 2 * DAY, 1000];

describe('a policy that keeps less', () => {
  it('is asked about, with what goes; one that keeps more is not', async () => {
    const dataDir = join(root, 'less');
    await makePoints(dataDir, ages);
    const { staging, call } = await start(dataDir);
    await call('POST', '/v1/servers/web/keep', { keep: 'all=1y' });
    const environment = {
      UNDERSTUDY_STAGING: staging.url,
      UNDERSTUDY_TOKEN_FILE: join(dataDir, 'token'),
    };
    const keep = (...words: string[]) => runLine(['server', 'keep', 'web', ...words], environment);
    const policy = async () =>
      (await call<ApiKeepPolicy>('GET', '/v1/servers/web/keep')).value.keep;
    for (const words of [['--keep', 'all=1h'], ['--default']]) {
      const { exitCode, err } = await keep(...words);
      expect(err).toContain('4 of 5 points of web would go within a minute');
      expect([exitCode, await policy()]).toEqual([6, 'all=1y']);
    }
    expect(await keep('--keep', 'all=2y')).toMatchObject({ exitCode: 0, err: '' });
    expect(await keep('--keep', 'all=1h', '--yes')).toMatchObject({ exitCode: 0, err: '' });
    expect(await policy()).toBe('all=1h');
  });
});

describe('retention by the API', () => {
  it('holds a point, keeps by the policy of a server, and drops the rest', async () => {
    const dataDir = join(root, 'one');
    await makePoints(dataDir, ages);
    const { call } = await start(dataDir);
    const { points } = (await call<ApiPoints>('GET', '/v1/points?order=oldest')).value;
    const ids = points.map(({ id }) => id);
    const held = await call('POST', `/v1/points/${ids[1]}/hold`, { reason: 'a lawsuit' });
    expect(held).toMatchObject({ status: 200, value: { hold: { reason: 'a lawsuit' } } });
    expect((await call('POST', `/v1/points/${ids[1]}/hold`, { reason: 'x' })).status).toBe(409);
    expect((await call('POST', '/v1/points/none/hold', { reason: 'x' })).status).toBe(404);
    expect((await call('POST', `/v1/points/${ids[1]}/hold`, {})).status).toBe(400);
    const asIf = await call<ApiRetentionPlan>('GET', '/v1/retention?server=web&keep=all=1h,2d=6d');
    expect((await call('GET', '/v1/retention?keep=all=1h')).status).toBe(400);
    expect((await call('GET', '/v1/retention?server=web&keep=x')).status).toBe(400);
    await call('POST', '/v1/servers/web/keep', { keep: 'all=1h,2d=6d' });
    const plan = (await call<ApiRetentionPlan>('GET', '/v1/retention?freed=true')).value;
    expect(plan.points.find(({ point }) => point === ids[1])!.keptBy).toContain('hold');
    expect(plan.drop.length).toBeGreaterThan(0);
    expect(asIf.value.drop).toEqual(plan.drop);
    expect(plan.freed!.storedBytes).toBeGreaterThanOrEqual(plan.drop.length * CHUNK_BYTES);
    const ran = await call<{ dropped: string[] }>('POST', '/v1/retention/run');
    expect(ran.value.dropped.sort()).toEqual(plan.drop.sort());
    const server = (await call<ApiServer>('GET', '/v1/servers/web')).value;
    expect(server).toMatchObject({ keep: 'all=1h,2d=6d', points: plan.keep.length });
    await call('POST', '/v1/servers/web/keep', { keep: null });
    const policy = (await call<ApiKeepPolicy>('GET', '/v1/servers/web/keep')).value;
    expect(policy).toMatchObject({ keep: 'all=1h', isDefault: true });
    await call('POST', '/v1/retention/run');
    const left = (await call<ApiPoints>('GET', '/v1/points?order=oldest')).value.points;
    expect(left.map(({ id }) => id)).toEqual([ids[1], ids[4]]);
    expect((await call('GET', '/v1/servers/none/keep')).status).toBe(404);
    expect((await call('POST', '/v1/servers/web/keep', { keep: 'x' })).status).toBe(400);
  });

  it('waits for an operator after the clock has leapt while the service was down', async () => {
    const dataDir = join(root, 'two');
    await makePoints(dataDir, ages);
    await start(dataDir);
    await stop();
    const { call } = await start(dataDir, 40 * DAY);
    const status = await call<{ retention: { isWaiting: boolean } }>('GET', '/v1/status');
    expect(status.value.retention.isWaiting).toBe(true);
    const refused = await call<{ error: { code: string } }>('POST', '/v1/retention/run');
    expect(refused).toMatchObject({ status: 409, value: { error: { code: 'ERR_CLOCK_DOUBTED' } } });
    expect((await call<ApiPoints>('GET', '/v1/points')).value.points).toHaveLength(5);
    await call('POST', '/v1/retention/resume');
    await call('POST', '/v1/retention/run');
    expect((await call<ApiPoints>('GET', '/v1/points')).value.points).toHaveLength(1);
    await stop();
    const again = await start(dataDir, 40 * DAY);
    const now = await again.call<{ retention: { isWaiting: boolean } }>('GET', '/v1/status');
    expect(now.value.retention.isWaiting).toBe(false);
  });

  it('goes on where the operator trusts the clock at the start', async () => {
    const dataDir = join(root, 'three');
    await makePoints(dataDir, ages);
    await start(dataDir);
    await stop();
    const { call } = await start(dataDir, 40 * DAY, true);
    expect((await call('POST', '/v1/retention/run')).status).toBe(200);
    expect((await call<ApiPoints>('GET', '/v1/points')).value.points).toHaveLength(1);
  });
});
