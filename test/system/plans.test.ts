/**
 * A recovery plan over real machines: groups in order, scripts, a member that may fail and one that may not,
 * a service that is killed meanwhile, a step that is retried; then boot checks by themselves.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ApiJob, ApiPlanCheck, ApiServerCheck } from '../../src/staging/api-types.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { bootDisk, spoilRoot } from '../tools/boot-disk.ts';
import { sh } from './helpers/device.ts';
import { isMachine } from './helpers/machines.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const POINT_MS = 120_000;
const BOOT_MS = 240_000;

/** The disk in a file as the server's newest point; the agent is stopped when it is there. */
async function replicate(scratch: Scratch, staging: Staging, server: string, disk: string) {
  const newest = async () => (await staging.points()).find((point) => point.server === server)?.id;
  const before = await newest();
  const words = ['--tracker', 'scan'];
  const agent = startAgent(scratch, staging, { volumes: [disk], server, words });
  await waitFor('a point', async () => (await newest()) !== before, { timeoutMs: POINT_MS });
  await agent.stop();
  return (await newest())!;
}

/** Ids of the processes whose command lines name a job and begin so. */
function processesOf(job: string, program: RegExp): string[] {
  return readdirSync('/proc').filter((id) => {
    const path = `/proc/${id}/cmdline`;
    if (!/^\d+$/.test(id) || !existsSync(path)) return false;
    try {
      const words = readFileSync(path, 'latin1');
      return words.includes(`/${job}/`) && program.test(words);
    } catch (error) {
      if (['ESRCH', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
      throw error;
    }
  });
}
function endAll(dataFolder: string): void {
  const jobs = join(dataFolder, 'jobs');
  if (!existsSync(jobs)) return;
  for (const id of readdirSync(jobs)) {
    for (const pid of processesOf(id, isMachine)) sh('kill', '-9', pid);
  }
}

/** 19: behind all else. */
const nicenessOf = (pid: string): number =>
  Number(readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')[16]);

const vm = { memoryBytes: 256 * 2 ** 20, accel: 'tcg', prepare: 'none' };
const plan = {
  name: 'shop',
  groups: [
    {
      name: 'data',
      pre: { script: 'announce', arguments: ['it begins'] },
      members: [
        {
          ...{ server: 'db1', waitFor: 'check', timeout: '10m', maxAge: '1d' },
          options: { ...vm, probe: 'http:/', timeoutMs: BOOT_MS },
        },
      ],
    },
    {
      name: 'web',
      waitBefore: '1s',
      members: [
        { server: 'cache1', isCritical: false, waitFor: 'check', timeout: '2s', options: vm },
        {
          ...{ server: 'web1', waitFor: 'check', timeout: '10m' },
          options: { ...vm, timeoutMs: BOOT_MS },
        },
      ],
      post: 'tell',
    },
  ],
};

function writeScripts(folder: string): void {
  mkdirSync(folder);
  writeFileSync(join(folder, 'announce'), '#!/bin/sh\necho "$UNDERSTUDY_GROUP: $1"\n');
  writeFileSync(join(folder, 'tell'), '#!/bin/sh\ncat >"$(dirname "$0")/../told.json"\n');
  for (const name of ['announce', 'tell']) chmodSync(join(folder, name), 0o755);
}

const jobOf = (staging: Staging, id: string) => staging.json<ApiJob>('job', 'show', id);
/** Halted, up or over: a command would be given up before, where the machine is busy. */
const settled = (staging: Staging, id: string) =>
  waitFor('the plan', async () => /^(?:halted|up|$)/.test((await jobOf(staging, id)).phase), {
    timeoutMs: 2 * BOOT_MS,
    everyMs: 500,
  });
const statesOf = ({ steps }: ApiJob) =>
  steps!.map(({ name, state }) => `${name} ${state}`).join(', ');

describe('a plan', () => {
  it('brings servers up in order, is halted and retried over a kill of the service, and ends them', async () => {
    await withScratch('plans', async (scratch) => {
      const disk = scratch.path('disk');
      copyFileSync(bootDisk(), disk);
      const scripts = scratch.path('scripts');
      writeScripts(scripts);
      const place = { dataFolder: scratch.path('data'), words: ['--scripts-dir', scripts] };
      let staging = await Staging.start(scratch, place);
      scratch.defer(() => endAll(place.dataFolder));
      for (const server of ['db1', 'cache1']) await replicate(scratch, staging, server, disk);
      const good = await replicate(scratch, staging, 'web1', disk);
      const bytes = readFileSync(disk);
      spoilRoot(bytes);
      writeFileSync(disk, bytes);
      const bad = await replicate(scratch, staging, 'web1', disk);

      const file = scratch.path('shop.json');
      writeFileSync(file, JSON.stringify(plan));
      await staging.json('plan', 'apply', file);
      const checked = await staging.json<ApiPlanCheck>('plan', 'check', 'shop');
      expect(checked.members.map(({ point, problem }) => [point, problem])).toEqual([
        ...[
          [expect.anything(), null],
          [expect.anything(), null],
          [bad, null],
        ],
      ]);
      const { id } = await staging.json<ApiJob>('plan', 'drill', 'shop');
      await settled(staging, id);
      const halted = await staging.run('job', 'wait', id);
      expect([halted.exitCode, halted.err]).toEqual([
        3,
        expect.stringContaining('ERR_PLAN_HALTED'),
      ]);
      expect(halted.out).toMatch(/member web1 +failed .*ALERT!/);
      const job = await jobOf(staging, id);
      expect(statesOf(job)).toBe(
        'announce done, db1 done, wait 1 s done, cache1 failed, web1 failed, tell waiting',
      );
      expect(job.steps![3]!.error!.code).toBe('ERR_PLAN_TIMEOUT');
      expect((await staging.run('job', 'log', id)).out).toContain('announce: data: it begins');
      expect(processesOf(`${id}.2.1`, isMachine)).toHaveLength(2);

      await staging.daemon.stop('SIGKILL');
      staging = await Staging.start(scratch, place);
      await staging.json('plan', 'retry', id, '--step', '5', '--point', good);
      await settled(staging, id);
      const retried = await staging.json<ApiJob>('job', 'wait', id);
      expect(statesOf(retried)).toContain('web1 done, tell done');
      expect(retried.steps![4]).toMatchObject({ attempt: 2, point: good });
      const told = JSON.parse(readFileSync(scratch.path('told.json'), 'utf8'));
      expect(told).toMatchObject({ plan: 'shop', kind: 'drill', job: id, group: 'web' });
      expect(told.members[0]).toMatchObject({ server: 'db1', access: { serial: /socat/ } });

      const ended = await staging.json<ApiJob>('plan', 'stop', id);
      expect(ended).toMatchObject({ state: 'cleaned', outcome: 'done' });
      for (const step of ['2.1', '4.1', '5.1', '5.2']) {
        expect(processesOf(`${id}.${step}`, isMachine)).toEqual([]);
      }
      const booted = await staging.json<(ListedPoint & { isVerified: boolean })[]>(
        ...['point', 'list', '--server', 'web1'],
      );
      const verdicts = booted.map((point) => [point.id, point.isVerified]);
      expect(verdicts).toContainEqual([bad, false]);
      expect(verdicts).toContainEqual([good, true]);
      await failOver(scratch, staging);
      await staging.daemon.stop();
      await checkByItself(scratch, place);
    });
  }, 1_200_000);
});

/** Its job is done when the machine is up (with TEST_FULL: has booted); the machine is on its own then. */
async function failOver(scratch: Scratch, staging: Staging): Promise<void> {
  const waitFor = process.env.TEST_FULL === '1' ? 'check' : 'up';
  const members = [{ server: 'db1', waitFor, options: { ...vm, network: 'isolated' } }];
  const file = scratch.path('alone.json');
  writeFileSync(file, JSON.stringify({ name: 'alone', groups: [{ name: 'g', members }] }));
  await staging.json('plan', 'apply', file);
  const unasked = await staging.run('plan', 'failover', 'alone');
  expect([unasked.exitCode, unasked.err]).toEqual([
    ...[6, expect.stringContaining('ERR_CLI_CONFIRMATION')],
  ]);
  const { id } = await staging.json<ApiJob>('plan', 'failover', 'alone', '--yes');
  await settled(staging, id);
  await staging.json('job', 'wait', id, '--ended');
  expect(await jobOf(staging, id)).toMatchObject({ state: 'cleaned', outcome: 'done' });
  const member = `${id}.1.1`;
  expect(await jobOf(staging, member)).toMatchObject({ kind: 'failover', state: 'running' });
  expect(processesOf(member, /^qemu-system/)).toHaveLength(1);
  await staging.json('failover', 'stop', member, '--timeout', '1s');
  expect(processesOf(member, isMachine)).toEqual([]);
  await staging.json('failover', 'discard', member, '--yes');
}

/** db1 has booted already, cache1 is not wanted: web1 is booted, behind all else, and fails loudly. */
async function checkByItself(
  scratch: Scratch,
  place: { dataFolder: string; words: string[] },
): Promise<void> {
  const how = ['--check-every', '1d', '--check-memory', '256MiB', '--check-accel', 'tcg'];
  const words = [...place.words, '--check-prepare', 'none'];
  const before = await Staging.start(scratch, { ...place, words });
  await before.json('server', 'check', 'cache1', '--every', 'off');
  await before.daemon.stop();
  const staging = await Staging.start(scratch, { ...place, words: [...words, ...how] });
  const check = () => staging.json<ApiServerCheck>('server', 'check', 'web1');
  await waitFor('a check', async () => (await check()).state === 'running', { timeoutMs: BOOT_MS });
  const { job } = (await check()).last!;
  const pids = () => processesOf(job!, isMachine);
  await waitFor('its machine', () => pids().length === 2, { timeoutMs: BOOT_MS });
  expect(pids().map(nicenessOf)).toEqual([19, 19]);
  expect(
    sh('ionice', '-p', ...pids())
      .trim()
      .split('\n'),
  ).toEqual(['idle', 'idle']);
  const hasEnded = async () => (await check()).last?.outcome !== null;
  await waitFor('its verdict', hasEnded, { timeoutMs: BOOT_MS });
  expect(await check()).toMatchObject({ failures: 1, last: { outcome: 'failed' } });
  expect(staging.daemon.errors).toContain('A POINT DOES NOT BOOT');
  const listed = (await staging.run('server', 'list')).out;
  expect(listed).toMatch(/^web1 .* FAILED .* ago$/m);
  expect(listed).toMatch(/^db1 .* not yet$/m);
  expect((await staging.run('server', 'show', 'web1')).out).toMatch(/last check: +FAILED .*ALERT!/);
  expect((await staging.run('point', 'list', '--server', 'web1')).out).toMatch(/ failed$/m);
  expect(await staging.json('server', 'check', 'db1')).toMatchObject({ last: null });
}
