/**
 * A recovery point that takes over for real: its machine serves while staging is killed, while the disk is
 * full, without its point, and again after its end; and what it has written goes by a discard alone.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createWebServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { Qmp } from '../../src/recovery/qemu/qmp.ts';
import type { ApiJob } from '../../src/staging/api-types.ts';
import { bootDisk, sshKeyOf } from '../tools/boot-disk.ts';
import { sh } from './helpers/device.ts';
import {
  askGuest,
  BOOT_MS,
  endAll,
  expectGone,
  expectRefusal,
  freePort,
  machinesOf,
  replicate,
} from './helpers/machines.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 1 << 20;
const SMALL = ['--memory', '256MiB', '--accel', 'tcg', '--prepare', 'none'];

const jobOf = (staging: Staging, id: string) => staging.json<ApiJob>('job', 'show', id);
const qemuOf = (job: ApiJob) => machinesOf(job).filter((words) => words.startsWith('qemu-system'));

/** A data folder on a file system of its own, which can be filled. */
function smallDisk(scratch: Scratch, sizeMiB: number): string {
  const folder = scratch.path('data');
  mkdirSync(folder);
  sh('mount', '-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'none', folder);
  scratch.defer(() => void sh('umount', '-l', folder));
  return folder;
}

const ballastOf = (folder: string): string => join(folder, 'ballast');
/** Takes all the room: the last page, too, so that not even a job can be written down. */
function fill(folder: string): void {
  for (const size of ['64K', '4K']) {
    const words = ['if=/dev/zero', `of=${ballastOf(folder)}`, `bs=${size}`];
    try {
      execFileSync('dd', [...words, 'oflag=append', 'conv=notrunc'], { stdio: 'pipe' });
    } catch (error) {
      if (!String((error as { stderr?: Buffer }).stderr).includes('No space left')) throw error;
    }
  }
}
const empty = (folder: string): void => rmSync(ballastOf(folder));

/** A web server of this machine, as the guest sees it. */
async function webServer(scratch: Scratch): Promise<string> {
  const server = createWebServer((_request, response) => void response.end('reached'));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  scratch.defer(() => void server.close());
  return `10.0.2.2:${(server.address() as AddressInfo).port}`;
}

describe('a failover', () => {
  it('serves through a kill of staging and a full disk until it stands alone, is kept, starts again', async () => {
    await withScratch('failover', async (scratch) => {
      const disk = scratch.path('disk');
      const data = scratch.path('other');
      copyFileSync(bootDisk(), disk);
      writeFileSync(data, randomMebibytes(1));
      const [port, web] = [await freePort(), await freePort()];
      const dataFolder = smallDisk(scratch, 400);
      const place = {
        ...{ dataFolder, listen: `127.0.0.1:${port}`, words: ['--keep', 'all=1s'] },
      };
      let staging = await Staging.start(scratch, place);
      scratch.defer(() => endAll(dataFolder));
      const words = ['--tracker', 'scan'];
      const volumes = [disk, data];
      const agent = startAgent(scratch, staging, { volumes, server: 'guest', words });
      await staging.waitForPoints(1);
      const refused = await staging.run('failover', 'start', '--server', 'guest');
      expectRefusal(refused, 'ERR_CLI_CONFIRMATION', 6);
      expect(refused.err).toContain('guest is replicating now');
      await agent.stop();
      const point = (await staging.points())[0]!.id;

      mkdirSync(join(dataFolder, 'probe-keys'));
      copyFileSync(sshKeyOf(bootDisk()), join(dataFolder, 'probe-keys/drill'));
      const { id } = await staging.json<ApiJob>(
        ...['failover', 'start', ...SMALL, '--server', 'guest', '--forward', `${web}:80`],
        ...['--probe', 'ssh:', '--probe-key', 'drill', '--probe-run', 'cat /var/boots'],
        ...['--copy-rate', '128KiB', '--wait'],
      );
      let job = await jobOf(staging, id);
      expect(job).toMatchObject({ phase: 'up', keeps: true, standsAlone: false });
      expect(job.check).toMatchObject({
        ...{ passed: true, probe: 'ssh:', detail: 'the command has succeeded: 1' },
      });
      expect(await askGuest(web, 'write', 'one')).toBe('written');
      expect(await askGuest(web, 'fetch', await webServer(scratch))).toBe('reached');
      expect(await askGuest(web, 'uuid')).toBe(job.access!.machine);
      expectRefusal(await staging.run('job', 'cancel', id), 'ERR_JOB_KEEPS', 6);
      expectRefusal(await staging.run('drill', 'stop', id), 'ERR_JOB_STATE', 6);
      expectRefusal(await staging.run('failover', 'discard', id, '--yes'), 'ERR_JOB_STATE', 6);
      const taken = ['--forward', `${web}:80`];
      const twin = await staging.run('failover', 'start', '--server', 'guest');
      expectRefusal(twin, 'ERR_CLI_CONFIRMATION', 6);
      expect(twin.err).toContain(`failover ${id} of guest runs already`);
      const busy = await staging.run('failover', 'start', '--server', 'guest', '--yes', ...taken);
      expectRefusal(busy, 'ERR_LAUNCH_PORT', 6);

      // Killed in the middle of the copy: the guest goes on, and is found again.
      const { progress } = await jobOf(staging, id);
      expect(progress!.done).toBeGreaterThan(0);
      expect(progress!.done).toBeLessThan(progress!.total);
      await staging.daemon.stop('SIGKILL');
      expect(await askGuest(web, 'write', 'two')).toBe('written');
      await hurry(job, 'copy0');
      // An image server, too.
      const server = job.made.find(({ name }) => name.endsWith('disk1.pid'))!.name;
      sh('kill', '-9', readFileSync(server, 'utf8').trim());
      staging = await Staging.start(scratch, place);
      expect(await jobOf(staging, id)).toMatchObject({ state: 'running', standsAlone: false });

      const logHas = (words: string) =>
        readFileSync(join(job.folder, 'log'), 'utf8').includes(words);
      const isServed = async () => logHas('had ended: started again');
      await waitFor('the image server', isServed, { timeoutMs: BOOT_MS });
      const isNext = async () => logHas(`copies ${data} in the background`);
      await waitFor('the copy of the second disk', isNext, { timeoutMs: BOOT_MS });

      // No room: the copy of the second disk waits, and goes on by itself.
      fill(dataFolder);
      await waitFor(
        'a paused copy',
        async () => /^the copy is paused, .*no room/.test((await jobOf(staging, id)).phase),
        { timeoutMs: BOOT_MS },
      );
      expect(await askGuest(web, 'rows')).toBe('one\ntwo');
      empty(dataFolder);
      await waitFor(
        'a machine that stands alone',
        async () => (await jobOf(staging, id)).standsAlone,
        { timeoutMs: BOOT_MS },
      );
      job = await jobOf(staging, id);
      expect(job.phase).toBe('up');
      expect(machinesOf(job)).toHaveLength(1);
      expect((await staging.run('failover', 'list')).out).toContain(id);
      expect((await staging.run('job', 'show', id)).out).toMatch(/keeps: +its disks.*stands alone/);

      // The point may go now, and the guest serves on.
      await replicate(scratch, staging, disk);
      expect((await staging.run('retention', 'run', '--yes')).exitCode).toBe(0);
      expectRefusal(await staging.run('point', 'show', point), 'ERR_POINT_NOT_FOUND', 5);
      const late = await staging.run('failover', 'start', '--point', point);
      expectRefusal(late, 'ERR_POINT_NOT_FOUND', 5);
      expect(await askGuest(web, 'write', 'three')).toBe('written');

      // No room for what the guest writes: it is paused, sees no error, and goes on by itself.
      fill(dataFolder);
      const filled = askGuest(web, 'fill', '200', 4 * BOOT_MS);
      await waitFor(
        'a paused guest',
        async () => /^the guest is paused: no room/.test((await jobOf(staging, id)).phase),
        { timeoutMs: BOOT_MS },
      );
      empty(dataFolder);
      expect(await filled).toBe('filled');
      await waitFor('a guest that goes on', async () => (await jobOf(staging, id)).phase === 'up', {
        timeoutMs: BOOT_MS,
      });

      // Stopped in order it keeps its disks, which need nothing; so it starts again, the same machine.
      const stopped = await staging.json<ApiJob>('failover', 'stop', id);
      expect(stopped).toMatchObject({ state: 'cleaned', outcome: 'done', keeps: true });
      expectGone(stopped);
      expect((await staging.run('job', 'log', id)).out).toContain('the guest has shut down');
      const overlay = join(stopped.access!.disks!, 'disk0.qcow2');
      expect(sh('qemu-img', 'info', overlay)).not.toContain('backing');
      sh('qemu-img', 'check', '-q', overlay);
      expectRefusal(await staging.run('job', 'remove', id), 'ERR_JOB_KEEPS', 6);
      await staging.daemon.stop();
      staging = await Staging.start(scratch, place);
      await staging.json<ApiJob>('failover', 'start', '--again', id, '--wait');
      await waitFor(
        'the web server',
        async () => (await askGuest(web, 'rows').catch(() => '')) !== '',
        { timeoutMs: BOOT_MS },
      );
      expect(await askGuest(web, 'rows')).toBe('one\ntwo\nthree');
      expect(await askGuest(web, 'uuid')).toBe(job.access!.machine);

      // Killed, as by a reboot of this machine: the disks are there, until they are thrown away.
      const [pidfile] = (await jobOf(staging, id)).made.filter(({ name }) =>
        name.endsWith('qemu.pid'),
      );
      sh('kill', '-9', readFileSync(pidfile!.name, 'utf8').trim());
      await waitFor('the end', async () => (await jobOf(staging, id)).state === 'cleaned', {
        timeoutMs: BOOT_MS,
      });
      expect(await jobOf(staging, id)).toMatchObject({
        outcome: 'failed',
        error: { code: 'ERR_LAUNCH_GONE', message: expect.stringContaining('--again') },
      });
      expect(existsSync(overlay)).toBe(true);
      expectRefusal(await staging.run('failover', 'discard', id), 'ERR_CLI_CONFIRMATION', 6);
      expect((await staging.run('failover', 'discard', id, '--yes')).exitCode).toBe(0);
      expect(existsSync(overlay)).toBe(false);
      expectRefusal(await staging.run('failover', 'start', '--again', id), 'ERR_JOB_STATE', 6);
      expect(qemuOf(job)).toEqual([]);
    });
  });
});

/** Lets QEMU copy as fast as it goes: its socket is free while staging is not there. */
async function hurry(job: ApiJob, device: string): Promise<void> {
  const run = job.made.find(({ name }) => name.endsWith('qemu.pid'))!.name;
  const qmp = await Qmp.connect(run.replace(/qemu\.pid$/, 'qmp.sock'), systemClock);
  await qmp.run('block-job-set-speed', { device, speed: 0 });
  qmp.close();
}

function randomMebibytes(count: number): Buffer {
  return execFileSync('head', ['-c', String(count * MIB), '/dev/urandom'], {
    maxBuffer: (count + 1) * MIB,
  });
}
