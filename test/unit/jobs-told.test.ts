/** What a job tells of its point, of what could not be written down, and how long it is remembered. */
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { renderJob } from '../../src/cli/jobs.ts';
import type { Job } from '../../src/staging/jobs/job-state.ts';
import { readRecord, writeRecord } from '../../src/staging/jobs/record-file.ts';
import {
  cleanedUp,
  drill,
  fullDisk,
  hastyClock,
  JobsWorld,
  POINT,
  type ScriptedLauncher,
  until,
  untilTold,
  upOf,
} from './support/jobs-world.ts';

let world: JobsWorld;
let root: string;
let launcher: ScriptedLauncher;
const start = () => world.start();
beforeEach(() => {
  world = new JobsWorld();
  ({ root, launcher } = world);
});
afterEach(() => world.close());

const pathOf = (id: string): string => join(root, 'data/jobs', id, 'job.json');

describe('a full disk', () => {
  it('a job tells its phase from memory where that cannot be written down, and writes it when it can', async () => {
    let isFull = false;
    const { clock } = hastyClock(50);
    const next = Promise.withResolvers<void>();
    launcher.script = async (launch) => {
      const running = untilTold(launch);
      await next.promise;
      await launch.phase('shutting down').catch(() => undefined);
      return running;
    };
    const jobs = await world.start(
      fullDisk(() => isFull),
      silentLog,
      clock,
    );
    const id = await upOf(jobs);
    expect(jobs.find(id).unwritten).toBe(null);
    isFull = true;
    next.resolve();
    await until(
      jobs,
      id,
      ({ phase, unwritten }) => phase === 'shutting down' && unwritten !== null,
    );
    expect(renderJob(jobs.find(id))).toContain('(shutting down; NOT WRITTEN DOWN: no room)');
    expect(readFileSync(pathOf(id), 'utf8')).not.toContain('shutting down');
    isFull = false;
    await until(jobs, id, ({ unwritten }) => unwritten === null);
    expect(readFileSync(pathOf(id), 'utf8')).toContain('shutting down');
  });
});

describe('a damaged place of its point', () => {
  const place = { volume: '/dev/sda', offset: 65_536, length: 65_536 };
  const text = `point ${POINT} is damaged at bytes 65536-131071 of /dev/sda`;

  it('is told by the job, once, in its log too, and in the next life; other jobs know nothing', async () => {
    let jobs = await start();
    const id = await upOf(jobs);
    for (const _ of [1, 2]) await jobs.damaged(POINT, place);
    await jobs.damaged('another', { ...place, offset: 0 });
    await jobs.damaged(POINT, { ...place, offset: 131_072 });
    expect(jobs.find(id)).toMatchObject({ phase: 'up', damage: [{ ...place, length: 131_072 }] });
    expect(launcher.launches[0]!.damage()).toHaveLength(1);
    await expect.poll(() => jobs.log(id)).toContain('131072-196607');
    expect((await jobs.log(id)).split(text)).toHaveLength(2);
    const shown = renderJob(jobs.find(id));
    expect(shown).toMatch(/state: +running \(up; POINT DAMAGED\)/);
    expect(shown).toMatch(/WARNING: +point .* 65536-196607 of \/dev\/sda.*repo repair/);
    await jobs.close();
    jobs = await start();
    expect(jobs.find(id).damage).toHaveLength(1);
    await jobs.stop(id);
    await until(jobs, id, cleanedUp);
    // It needs the point no more.
    await jobs.damaged(POINT, { ...place, volume: '/dev/sdb' });
    expect(jobs.find(id).damage).toHaveLength(1);
  });

  it('is why it failed, however that showed', async () => {
    launcher.script = async (launch) => {
      await jobs.damaged(POINT, place);
      expect(launch.damage()).toEqual([place]);
      throw new UnderstudyError('ERR_PREPARE_FAILED', 'mount: Input/output error');
    };
    const jobs = await start();
    const { id } = await jobs.start(drill());
    await until(jobs, id, cleanedUp);
    const { error } = jobs.find(id);
    expect(error!.code).toBe('ERR_PREPARE_FAILED');
    expect(error!.message).toContain(`mount: Input/output error; ${text}`);
  });

  it('that the launcher itself has met is told likewise', async () => {
    launcher.script = async () => {
      const context = { point: POINT, volume: '/dev/sda', offset: 65_536 };
      throw new UnderstudyError('ERR_PIECE_DAMAGED', 'a content is damaged', context);
    };
    const jobs = await start();
    const { id } = await jobs.start(drill());
    await until(jobs, id, cleanedUp);
    expect(jobs.find(id).damage).toEqual([place]);
    expect(jobs.find(id).error!.message).toContain(text);
  });
});

describe('of many jobs that are over', () => {
  it('the newest are remembered, also where several are added at once', async () => {
    const before = await start();
    const id = await upOf(before);
    await before.stop(id);
    await until(before, id, cleanedUp);
    await before.close();
    const record = await readRecord<Job>(nodeDisk, pathOf(id), 'understudy-job 1');
    for (let old = 0; old < 502; old += 1) {
      const name = `20260101T000000Z-${String(old).padStart(8, '0')}`;
      mkdirSync(join(root, 'data/jobs', name));
      await writeRecord(nodeDisk, pathOf(name), 'understudy-job 1', { ...record, id: name });
    }
    const jobs = await start();
    const added = await Promise.all([1, 2, 3].map(() => jobs.start(drill())));
    await expect.poll(() => jobs.list().length).toBe(503);
    await expect.poll(() => readdirSync(join(root, 'data/jobs')).length).toBe(503);
    const left = jobs.list().map((job) => job.id);
    expect(left).toEqual(expect.arrayContaining([id, ...added.map((job) => job.id)]));
    expect(left.at(-1)).toBe('20260101T000000Z-00000003');
    // By hand, twice at once: one of them finds it gone, and the other has done it.
    await Promise.all([1, 2].map(() => jobs.remove(id).catch(() => null)));
    expect(existsSync(join(root, 'data/jobs', id))).toBe(false);
  });
});
