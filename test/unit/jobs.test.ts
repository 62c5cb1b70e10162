/** Jobs over a real folder with a launcher that does what it is told: durability, restarts, holds, ends. */
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { renderJob } from '../../src/cli/jobs.ts';
import { makeImageGrant, pointOfGrant } from '../../src/staging/image-grant.ts';
import { ImageDoor } from '../../src/staging/jobs/image-door.ts';
import type { Job } from '../../src/staging/jobs/job-state.ts';
import type { Jobs } from '../../src/staging/jobs/jobs.ts';
import { readRecord, writeRecord } from '../../src/staging/jobs/record-file.ts';
import type { FakeBackend } from './support/fake-backend.ts';
import {
  cleanedUp,
  drill,
  fullDisk,
  hastyClock,
  isUp,
  JobsWorld,
  OVERLAY,
  POINT,
  PRODUCT,
  type ScriptedLauncher,
  type ScriptedRunner,
  until,
  untilTold,
  upOf,
} from './support/jobs-world.ts';

let world: JobsWorld;
let root: string;
let launcher: ScriptedLauncher;
let runner: ScriptedRunner;
let backend: FakeBackend;
const start = (disk?: Disk): Promise<Jobs> => world.start(disk);
beforeEach(() => {
  world = new JobsWorld();
  ({ root, launcher, runner, backend } = world);
});
afterEach(() => world.close());

describe('a job', () => {
  it('holds its point while it runs, is stopped, cleaned up, logged and remembered', async () => {
    const jobs = await start();
    const id = await upOf(jobs);
    expect(backend.openReaders()).toBe(1);
    expect(jobs.find(id)).toMatchObject({ state: 'running', access: { serial: 'socat' } });
    await jobs.stop(id);
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id)).toMatchObject({ outcome: 'done', error: null });
    expect(launcher.cleaned).toEqual([['overlay']]);
    expect(backend.openReaders()).toBe(0);
    await expect.poll(() => jobs.log(id)).toMatch(/Z begun\n.*stopped\n.*done\n.*cleaned up\n$/s);
    expect(jobs.list().map((job) => job.id)).toEqual([id]);
    await expect(jobs.stop(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
  });

  it('that fails tells why, and takes away what it made, products too', async () => {
    launcher.script = async (launch) => {
      await launch.making(OVERLAY);
      await launch.making(PRODUCT);
      throw new UnderstudyError('ERR_LAUNCH_FAILED', 'it broke');
    };
    const jobs = await start();
    const { id } = await jobs.start(drill());
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id)).toMatchObject({
      ...{ outcome: 'failed', error: { code: 'ERR_LAUNCH_FAILED', message: 'it broke' } },
    });
    expect(launcher.cleaned).toEqual([['overlay', 'product']]);
  });

  it('that is cancelled is cancelled, and a stop after it changes nothing', async () => {
    const jobs = await start();
    const id = await upOf(jobs);
    await jobs.cancel(id);
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id).outcome).toBe('cancelled');
  });

  it('writes down what will be made before the launcher goes on, and stops it where it cannot', async () => {
    let isFull = false;
    const disk = fullDisk(() => isFull);
    let wasMade = false;
    launcher.script = async (launch) => {
      await launch.making(OVERLAY);
      const record = readFileSync(join(launch.folder, 'job.json'), 'utf8');
      expect(record).toContain('"overlay"');
      isFull = true;
      await launch.making(PRODUCT);
      wasMade = true;
      return 'done';
    };
    // What could not be written down is not tried again by itself, however slow the machine is.
    const jobs = await world.start(disk, silentLog, hastyClock(1 / 1000).clock);
    const { id } = await jobs.start(drill());
    // Said when it could not be written down either.
    await expect.poll(() => jobs.log(id)).toContain('cleaned up');
    expect(launcher.cleaned.length).toBe(1);
    expect(wasMade).toBe(false);
    expect(jobs.find(id)).toMatchObject({ outcome: 'failed', error: { code: 'ERR_DISK_FULL' } });
    isFull = false;
    await jobs.close();
    const again = await start(disk);
    await expect.poll(() => launcher.launches.length).toBe(2);
    expect(again.find(id).state).not.toBe('done');
  });

  it('whose check gave a verdict leaves it with the point, for good', async () => {
    const check = { passed: true, probe: 'console', bootMs: 7000, detail: 'web1 login:' };
    launcher.script = async (launch) => {
      await launch.checked(check);
      return 'done';
    };
    const jobs = await start();
    expect(await jobs.bootCheck(POINT)).toBe(null);
    const { id } = await jobs.start(drill({ check: true }));
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id).check).toEqual(check);
    await jobs.remove(id);
    expect(await jobs.bootCheck(POINT)).toMatchObject({ ...check, job: id, server: 'web1' });
    expect(existsSync(join(root, 'data/jobs', id))).toBe(false);
    expect(() => jobs.find(id)).toThrow('no job');
  });
});

describe('after a restart of staging', () => {
  it('what runs was left running, is launched again with its notes, and its point is held at once', async () => {
    const before = await start();
    const id = await upOf(before);
    await before.close();
    expect(launcher.cleaned).toEqual([]);
    expect(backend.openReaders()).toBe(0);
    const jobs = await start();
    expect(backend.openReaders()).toBe(1);
    await expect.poll(() => launcher.launches.length).toBe(2);
    expect(launcher.launches[1]).toMatchObject({ notes: { startedMs: 1 }, made: [OVERLAY] });
    await jobs.stop(id);
    await until(jobs, id, cleanedUp);
    expect(launcher.cleaned).toEqual([['overlay']]);
  });

  it('what is gone has failed, and is cleaned up', async () => {
    const before = await start();
    const id = await upOf(before);
    await before.close();
    launcher.script = async () => {
      throw new UnderstudyError('ERR_LAUNCH_GONE', 'gone');
    };
    const jobs = await start();
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id)).toMatchObject({ outcome: 'failed', error: { code: 'ERR_LAUNCH_GONE' } });
  });

  it('what could not be cleaned up is cleaned up, also by `remove`', async () => {
    launcher.cleanFails = true;
    launcher.script = async (launch) => {
      await launch.making(OVERLAY);
      return 'done';
    };
    const before = await start();
    const { id } = await before.start(drill());
    await until(before, id, (job) => job.cleanError === 'it will not go');
    expect(before.find(id).state).toBe('done');
    await expect(before.remove(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
    await before.close();
    launcher.cleanFails = false;
    const jobs = await start();
    await until(jobs, id, cleanedUp);
    expect(launcher.cleaned).toEqual([['overlay']]);
    await jobs.remove(id);
    expect(jobs.list()).toEqual([]);
  });

  it('what could not be cleaned up is tried again by itself, later each time, until it is', async () => {
    launcher.cleanFails = true;
    launcher.script = async (launch) => {
      await launch.making(OVERLAY);
      return 'done';
    };
    const { clock, delays } = hastyClock(100);
    const jobs = await world.start(nodeDisk, silentLog, clock);
    const { id } = await jobs.start(drill());
    await until(jobs, id, ({ cleanTries }) => cleanTries >= 3);
    expect(jobs.find(id)).toMatchObject({ state: 'done', cleanError: 'it will not go' });
    expect(jobs.find(id).cleanAgainAt).toMatch(/Z$/);
    expect(jobs.uncleaned().map((job) => job.id)).toEqual([id]);
    expect(renderJob(jobs.find(id))).toMatch(/not cleaned up: it will not go; try \d at 20/);
    expect(renderJob({ ...jobs.find(id), target: 'ec2' })).toContain('and may cost money');
    // Told when it is durable; the timer is set a moment later.
    await expect.poll(() => delays.slice(0, 3)).toEqual([5000, 10_000, 20_000]);
    launcher.cleanFails = false;
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id)).toMatchObject({ cleanError: null, cleanTries: 0, cleanAgainAt: null });
    expect(jobs.uncleaned()).toEqual([]);
    const log = await jobs.log(id);
    expect(log).toMatch(/failed: it will not go; tried again in 5.0 s\n.*again in 10.0 s\n/s);
  });

  it('how often it was tried is remembered, and a stop of staging ends the tries', async () => {
    launcher.cleanFails = true;
    launcher.script = async () => 'done';
    const { clock, delays } = hastyClock(50);
    const before = await world.start(nodeDisk, silentLog, clock);
    const { id } = await before.start(drill());
    await until(before, id, ({ cleanTries }) => cleanTries >= 2);
    await before.close();
    const [tries, set] = [before.find(id).cleanTries, delays.length];
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect([before.find(id).cleanTries, delays.length]).toEqual([tries, set]);
    const jobs = await start();
    await until(jobs, id, ({ cleanTries }) => cleanTries === tries + 1);
    launcher.cleanFails = false;
    await jobs.remove(id);
    expect(jobs.list()).toEqual([]);
  });

  it('a damaged record is told and left alone; the others go on', async () => {
    const errors: string[] = [];
    const before = await start();
    const one = await before.start(drill());
    const other = await before.start(drill());
    for (const { id } of [one, other]) {
      await until(before, id, isUp);
      await before.stop(id);
      await until(before, id, cleanedUp);
    }
    await before.close();
    const path = join(root, 'data/jobs', one.id, 'job.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('"done"', '"gone"'));
    const log = { ...silentLog, error: (message: string) => void errors.push(message) };
    const jobs = await world.start(nodeDisk, log);
    expect(jobs.list().map(({ id }) => id)).toEqual([other.id]);
    expect(errors[0]).toContain('damaged');
    expect(existsSync(path)).toBe(true);
  });
});

describe('a job that is no launch', () => {
  const plan = (options = {}) => ({ kind: 'plan' as const, server: '', options });

  it('is run, left, run again, stopped and cleaned up by the runner of its kind, without a point', async () => {
    const before = await start();
    const { id } = await before.startWork(plan({ file: 'p' }));
    await until(before, id, isUp);
    expect(before.find(id)).toMatchObject({
      ...{ kind: 'plan', target: '', server: '', point: '', pointTime: '' },
      options: { file: 'p', completed: true },
    });
    expect(backend.openReaders()).toBe(0);
    await before.close();
    const jobs = await start();
    await expect.poll(() => runner.works.length).toBe(2);
    expect(runner.works[1]).toMatchObject({ kind: 'plan', notes: { startedMs: 1 } });
    await jobs.stop(id);
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id).outcome).toBe('done');
    expect(runner.cleaned).toEqual([['overlay']]);
    expect(launcher.launches).toEqual([]);
  });

  it('that starts another one as staging starts: it is launched once, by an id of its own', async () => {
    const before = await start();
    const { id } = await before.startWork(plan());
    // Sorted behind it: jobs are begun one after the other, and these are still to come.
    const ids = [1, 2, 3, 4, 5, 6].map((number) => `${id}.${number}`);
    for (const each of ids) await before.start({ ...drill(), id: each });
    for (const each of ids) await until(before, each, isUp);
    await before.close();
    launcher.launches.length = 0;
    const child = `${id}.7`;
    runner.run = async (work) => {
      await runner.jobs!.start({ ...drill(), id: child });
      return untilTold(work);
    };
    const jobs = await start();
    await until(jobs, child, isUp);
    expect(launcher.launches.map(({ jobId }) => jobId).sort()).toEqual([...ids, child]);
    await expect(jobs.start({ ...drill(), id: child })).rejects.toMatchObject({
      code: 'ERR_JOB_STATE',
    });
  });

  it('is refused as its runner says, or where there is none', async () => {
    const jobs = await start();
    await expect(jobs.startWork(plan({ bad: true }))).rejects.toMatchObject({
      ...{ code: 'ERR_LAUNCH_OPTIONS', message: 'no such plan' },
    });
    const failback = { kind: 'failback' as const, server: 'web1', options: {} };
    await expect(jobs.startWork(failback)).rejects.toMatchObject({ code: 'ERR_LAUNCH_OPTIONS' });
    expect(jobs.list()).toEqual([]);
  });
});

describe('a launch', () => {
  it('is told whether it is a drill or a failover', async () => {
    const jobs = await start();
    for (const kind of ['drill', 'failover'] as const) {
      const id = await upOf(jobs, { ...drill(), kind });
      expect(jobs.find(id).kind).toBe(kind);
      expect(launcher.launches.at(-1)).toMatchObject({ kind, server: 'web1' });
    }
  });

  it('whose record a former version wrote is a drill', async () => {
    const before = await start();
    const id = await upOf(before);
    await before.close();
    const path = join(root, 'data/jobs', id, 'job.json');
    const { kind: _new, ...former } = await readRecord<Job>(nodeDisk, path, 'understudy-job 1');
    await writeRecord(nodeDisk, path, 'understudy-job 1', former);
    const jobs = await start();
    expect(jobs.find(id)).toMatchObject({ kind: 'drill', state: 'running' });
    await expect.poll(() => launcher.launches.length).toBe(2);
  });
});

describe('what cannot be launched is refused, and nothing is made', () => {
  it.each([
    [{ ...drill(), point: 'none' }, 'ERR_POINT_NOT_FOUND'],
    [{ ...drill(), target: 'moon' }, 'ERR_LAUNCH_OPTIONS'],
    [drill({ bad: true }), 'ERR_LAUNCH_PROGRAM'],
  ])('%j', async (wanted, code) => {
    const jobs = await start();
    await expect(jobs.start(wanted)).rejects.toMatchObject({ code });
    expect(jobs.list()).toEqual([]);
    expect(existsSync(join(root, 'data/jobs'))).toBe(false);
    expect(backend.openReaders()).toBe(0);
  });

  it('nor while staging is being stopped, nor removed while it runs', async () => {
    const jobs = await start();
    const { id } = await jobs.start(drill());
    await expect(jobs.remove(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
    await jobs.close();
    await expect(jobs.start(drill())).rejects.toMatchObject({ code: 'ERR_STAGING_STOPPING' });
  });

  it('evidence is told by the names that it can have, and by no other', async () => {
    const jobs = await start();
    const { id, folder } = await jobs.start(drill());
    writeFileSync(join(folder, 'console.log'), 'said');
    expect(Buffer.from(await jobs.evidence(id, 'console.log')).toString()).toBe('said');
    for (const name of ['prepare.json', 'prepare-console.log', 'prepare-qemu.log']) {
      writeFileSync(join(folder, name), name);
      expect(Buffer.from(await jobs.evidence(id, name)).toString()).toBe(name);
    }
    for (const name of ['job.json', '../../token', 'screenshot.png', '']) {
      await expect(jobs.evidence(id, name)).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    }
  });
});

describe('the door to images', () => {
  it('opens to the user alone, with a credential in a file, at the same place after a restart', async () => {
    const options = {
      ...{ runFolder: join(root, 'run'), clock: systemClock, log: silentLog, token: 'a-token' },
    };
    const folder = join(root, 'run/job');
    for (const life of [1, 2]) {
      const door = new ImageDoor(options);
      const address = await door.address(POINT, '/dev/vda', folder);
      expect(address.socketPath).toBe(join(root, 'run/images.sock'));
      expect(address.url).toContain(`/v1/points/${POINT}/volumes/%2Fdev%2Fvda/image`);
      expect(statSync(join(root, 'run')).mode & 0o777).toBe(0o700);
      expect(statSync(address.cookieFile).mode & 0o777).toBe(0o600);
      const [name, grant] = readFileSync(address.cookieFile, 'utf8').split('=');
      expect(name).toBe('understudy_token');
      expect(pointOfGrant('a-token', grant!, Date.now())).toBe(POINT);
      door.serve((_request, response) => void response.end(`life ${life}`));
      expect(await ask(address.socketPath)).toBe(`life ${life}`);
      await door.close();
    }
    expect(existsSync(join(root, 'run/images.sock'))).toBe(false);
  });

  it('is not opened where others could put another one in its place', async () => {
    // Short names: what is too long for sockets is refused before.
    const place = join(root, 's');
    mkdirSync(place);
    const runFolder = join(place, 'r');
    const options = { runFolder, clock: systemClock, log: silentLog, token: 'a-token' };
    const door = new ImageDoor(options);
    for (const [mode, isSafe] of [
      [0o777, false],
      [0o775, false],
      [0o1777, true],
      [0o755, true],
    ] as const) {
      chmodSync(place, mode);
      const opened = door.address(POINT, '/dev/vda', join(runFolder, 'job'));
      if (isSafe) await opened;
      else await expect(opened).rejects.toMatchObject({ code: 'ERR_DISK_PERMISSION' });
    }
    await door.close();
  });
});

function ask(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: '/' }, (response) => {
      response.setEncoding('utf8');
      let text = '';
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve(text));
    });
    asked.on('error', reject);
    asked.end();
  });
}

describe('a credential for the images of a point', () => {
  const grant = makeImageGrant('a-token', POINT, 1000);

  it('opens that point, until its time is over', () => {
    expect(pointOfGrant('a-token', grant, 999)).toBe(POINT);
    expect(pointOfGrant('a-token', grant, 1000)).toBe(null);
    expect(grant).toMatch(/^[\x21-\x7e]+$/);
    expect(grant).not.toMatch(/[;=,]/);
  });

  it('cannot be made of another, nor by another token', () => {
    const [kind, point, , seal] = grant.split('.');
    const other = Buffer.from('other').toString('base64url');
    for (const forged of [
      [kind, point, '9999999', seal].join('.'),
      [kind, other, '1000', seal].join('.'),
      [kind, point, '1000', ''].join('.'),
      [kind, point, '1000'].join('.'),
      '',
      'a-token',
    ]) {
      expect(pointOfGrant('a-token', forged, 0)).toBe(null);
    }
    expect(pointOfGrant('b-token', grant, 0)).toBe(null);
  });
});
