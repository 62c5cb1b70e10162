/** Recovery points that are made to run: a real disk through a real agent into a service that boots it. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ApiJob } from '../../src/staging/api-types.ts';
import { bootDisk, OPERATOR_PASSWORD } from '../tools/boot-disk.ts';
import { digestOfFile, sh } from './helpers/device.ts';
import {
  askGuest,
  BOOT_MS,
  consoleOf,
  endAll,
  expectGone,
  expectRefusal,
  freePort,
  machinesOf,
  replicate,
} from './helpers/machines.ts';
import { withScratch } from './helpers/scratch.ts';
import { Staging } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 1 << 20;
const SMALL = ['--memory', '256MiB'];

const startDrill = (staging: Staging, ...words: string[]) =>
  staging.json<ApiJob>('drill', 'start', ...SMALL, '--accel', 'tcg', ...words);
const jobOf = (staging: Staging, id: string) => staging.json<ApiJob>('job', 'show', id);

describe('a drill', () => {
  it('boots a point, checks it, runs beside others and over restarts, and leaves the point as it was', async () => {
    await withScratch('drill', async (scratch) => {
      const disk = scratch.path('disk');
      copyFileSync(bootDisk(), disk);
      const port = await freePort();
      const place = { dataFolder: scratch.path('data'), listen: `127.0.0.1:${port}` };
      let staging = await Staging.start(scratch, { ...place, words: ['--keep', 'all=1s'] });
      scratch.defer(() => endAll(place.dataFolder));
      const point = await replicate(scratch, staging, disk);

      // Two side by side: one is checked by its web server from a restarted service, one only runs.
      const web = await freePort();
      const forward = ['--forward', `${web}:80`];
      const checked = await startDrill(staging, ...forward, '--probe', 'http:/', '--keep-running');
      const keys = join(place.dataFolder, 'probe-keys');
      mkdirSync(keys);
      writeFileSync(join(keys, 'op'), `${OPERATOR_PASSWORD}\n`, { mode: 0o600 });
      const serial = ['--probe', 'serial:operator', '--probe-password-file', 'op'];
      const run = ['--probe-run', "id -un; printf 'it is %s it\\n' drill; test -e /etc/boot"];
      const plain = await startDrill(staging, ...serial, ...run, '--keep-running');
      await waitFor(
        'both machines',
        () => [checked, plain].every((j) => machinesOf(j).length === 2),
        {
          timeoutMs: 120_000,
        },
      );
      expect(machinesOf(checked).join('')).not.toContain(
        readFileSync(staging.tokenFile, 'utf8').trim(),
      );
      await staging.daemon.stop('SIGKILL');
      staging = await Staging.start(scratch, { ...place, words: ['--keep', 'all=1s'] });
      await waitFor('the login prompt', () => /login: /.test(consoleOf(plain)), {
        timeoutMs: BOOT_MS,
      });
      expect(consoleOf(plain)).toContain('boots: 1');
      const wait = await staging.run('job', 'wait', checked.id);
      expect(wait.exitCode, wait.err).toBe(0);
      const up = await jobOf(staging, checked.id);
      expect(up).toMatchObject({
        state: 'running',
        phase: 'up',
        check: { passed: true, probe: 'http:/' },
      });
      await expectSerial(staging, plain.id);
      // A machine of its own, which reaches nothing of this one.
      expect(await askGuest(web, 'uuid')).toBe(up.access!.machine);
      expect(up.access!.machine).not.toBe((await jobOf(staging, plain.id)).access!.machine);
      expect(await askGuest(web, 'fetch', `10.0.2.2:${port}`)).toBe('unreachable');
      expect((await staging.run('drill', 'list')).out).toMatch(/running \(up\).*running \(up\)/s);

      // What runs holds its point, which is no longer the newest.
      await replicate(scratch, staging, disk);
      expect((await staging.run('retention', 'run', '--yes')).exitCode).toBe(0);
      expect((await staging.run('point', 'show', point)).exitCode).toBe(0);

      const stopped = await staging.json<ApiJob>('drill', 'stop', plain.id);
      expect(stopped).toMatchObject({ state: 'cleaned', outcome: 'done' });
      expectGone(stopped);
      expect(machinesOf(checked)).toHaveLength(2);

      // Both wrote to their disks; the point is as it was, and boots for the first time once more.
      const out = scratch.path('out.raw');
      await staging.export(point, disk, out);
      expect(digestOfFile(out)).toBe(digestOfFile(disk));
      const cancelled = await staging.json<ApiJob>('job', 'cancel', checked.id);
      expect(cancelled).toMatchObject({ state: 'cleaned', outcome: 'cancelled' });
      expectGone(cancelled);
      await checkOnce(staging, point);

      expect((await staging.run('retention', 'run', '--yes')).exitCode).toBe(0);
      const gone = await staging.run('drill', 'start', '--point', point);
      expectRefusal(gone, 'ERR_POINT_NOT_FOUND', 5);
    });
  });

  it('whose machine ended while staging was not there has failed, and is cleaned up', async () => {
    await withScratch('drill-gone', async (scratch) => {
      const disk = scratch.path('disk');
      copyFileSync(bootDisk(), disk);
      const dataFolder = scratch.path('data');
      const before = await Staging.start(scratch, { dataFolder });
      scratch.defer(() => endAll(dataFolder));
      await replicate(scratch, before, disk);
      const { id } = await startDrill(before, '--wait');
      const job = await jobOf(before, id);
      expect(machinesOf(job)).toHaveLength(2);
      expect(await before.daemon.stop()).toBe(0);
      expect(machinesOf(job)).toHaveLength(2);
      sh('kill', '-9', readFileSync(pidfileOf(job), 'utf8').trim());
      const staging = await Staging.start(scratch, { dataFolder });
      expectRefusal(await staging.run('job', 'wait', id, '--ended'), 'ERR_LAUNCH_GONE', 3);
      expectGone(await jobOf(staging, id));
      const again = await staging.run('drill', 'stop', id);
      expectRefusal(again, 'ERR_JOB_STATE', 6);
      expect((await staging.run('job', 'remove', id)).exitCode).toBe(0);
      expectRefusal(await staging.run('job', 'show', id), 'ERR_JOB_NOT_FOUND', 5);
      expect(existsSync(job.folder)).toBe(false);
    });
  });

  it('that cannot be is refused in one line, and nothing is made', async () => {
    await withScratch('drill-refused', async (scratch) => {
      const disk = scratch.path('disk');
      copyFileSync(bootDisk(), disk);
      const data = scratch.path('not-bootable');
      writeFileSync(data, Buffer.alloc(MIB, 7));
      const dataFolder = scratch.path('data');
      const staging = await Staging.start(scratch, { dataFolder });
      scratch.defer(() => endAll(dataFolder));
      await replicate(scratch, staging, disk);
      await replicate(scratch, staging, data, 'data');
      const start = (...words: string[]) => staging.run('drill', 'start', ...words);

      expectRefusal(await start('--point', 'no-such-point'), 'ERR_POINT_NOT_FOUND', 5);
      expectRefusal(await start('--server', 'nobody'), 'ERR_SERVER_NOT_FOUND', 5);
      expectRefusal(await start('--server', 'data'), 'ERR_LAUNCH_NOT_BOOTABLE', 6);
      const guest = ['--server', 'guest'];
      expectRefusal(await start(...guest, '--probe', 'ping'), 'ERR_LAUNCH_OPTIONS', 2);
      expectRefusal(await start(...guest, '--format', 'raw'), 'ERR_LAUNCH_OPTIONS', 2);
      expectRefusal(await start(...guest, '--bus', 'ide'), 'ERR_USAGE', 2);
      const taken = createServer();
      await new Promise<void>((done) => taken.listen(0, '127.0.0.1', done));
      const address = taken.address();
      const port = typeof address === 'object' ? address!.port : 0;
      expectRefusal(await start(...guest, '--vnc', `127.0.0.1:${port}`), 'ERR_LAUNCH_PORT', 6);
      taken.close();
      expect(await staging.json('job', 'list')).toEqual([]);
      expect(existsSync(join(dataFolder, 'jobs'))).toBe(false);

      const files = await startPlain(staging, ...guest, '--target', 'export', '--wait');
      expect(digestOfFile(Object.values(files.access!)[0]!)).toBe(digestOfFile(disk));
      await staging.daemon.stop();
      const poor = await Staging.start(scratch, { dataFolder, environment: { PATH: '/nowhere' } });
      const missing = await poor.run('drill', 'start', ...guest);
      expectRefusal(missing, 'ERR_LAUNCH_PROGRAM', 3);
      expect(missing.err).toContain('qemu-system-x86_64');
    });
  });
});

const startPlain = (staging: Staging, ...words: string[]) =>
  staging.json<ApiJob>('drill', 'start', ...words);

const pidfileOf = (job: ApiJob): string =>
  job.made.find(({ name }) => name.endsWith('/qemu.pid'))!.name;

/** The command has run as the operator, the line is free again, and his password is nowhere. */
async function expectSerial(staging: Staging, id: string): Promise<void> {
  const waited = await staging.run('job', 'wait', id);
  expect(waited.exitCode, waited.err).toBe(0);
  const job = await jobOf(staging, id);
  const detail = 'the command has succeeded: operator; it is ********';
  expect(job).toMatchObject({
    ...{ state: 'running', phase: 'up', check: { passed: true, probe: 'serial:operator', detail } },
  });
  const probe = await staging.run('job', 'log', id, '--of', 'probe');
  expect(probe.out).toContain('operator\nit is ********\n');
  const line = connect(/UNIX-CONNECT:(\S+)$/.exec(job.access!.serial!)![1]!);
  let said = '';
  line.on('data', (data) => {
    said += data.toString();
  });
  line.write('\r');
  await waitFor('a login prompt for whoever comes next', () => /drilled login: $/.test(said), {
    timeoutMs: BOOT_MS,
  });
  line.destroy();
  const answers = await Promise.all([
    staging.run('job', 'show', id, '--json'),
    ...['job', 'console', 'qemu'].map((of) => staging.run('job', 'log', id, '--of', of)),
  ]);
  const files = readdirSync(job.folder).filter((name) => /\.(?:log|json)$|^log$/.test(name));
  expect(files).toEqual(expect.arrayContaining(['console.log', 'job.json', 'log', 'probe.log']));
  const kept = files.map((name) => readFileSync(join(job.folder, name), 'latin1'));
  for (const text of [...kept, ...answers.map(({ out, err }) => out + err)]) {
    expect(text).not.toContain(OPERATOR_PASSWORD);
  }
}

/** `drill start --check --wait`, and all that it leaves behind. */
async function checkOnce(staging: Staging, point: string): Promise<void> {
  const words = ['--point', point, '--check', '--wait', '--timeout', '4m', '--bus', 'nvme'];
  const job = await staging.json<ApiJob>('drill', 'start', ...SMALL, ...words);
  expect(job).toMatchObject({ state: 'cleaned', outcome: 'done' });
  expect(job.check).toMatchObject({ passed: true, probe: 'console', detail: 'drilled login:' });
  expectGone(job);
  expect(consoleOf(job)).toContain('boots: 1');
  const picture = readFileSync(join(job.folder, 'screenshot.png'));
  expect(picture.toString('latin1', 1, 4)).toBe('PNG');
  expect((await staging.run('job', 'log', job.id)).out).toMatch(/check passed after [\d.]+ s/);
  const console_ = await staging.run('job', 'log', job.id, '--of', 'console');
  expect(console_.out).toContain('Linux version');
  const shown = await staging.run('point', 'show', point);
  expect(shown.out).toMatch(/boot check: +verified: booted in [\d.]+ s, .*drilled login:/);
}
