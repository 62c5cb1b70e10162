/** The background copy of a machine's disks, against a QEMU that answers as one does: order, crashes, errors. */
import { beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import type { DamagedPlace } from '../../src/recovery/damage.ts';
import type { Launch } from '../../src/recovery/launcher.ts';
import { BackgroundCopy } from '../../src/recovery/qemu/background-copy.ts';
import type { Qmp } from '../../src/recovery/qemu/qmp.ts';
import { lookForTrouble } from '../../src/recovery/qemu/trouble.ts';
import type { LaunchOptions } from '../../src/recovery/runner.ts';
import { fakePoint } from './support/fake-backend.ts';

/** The block jobs, nodes and run state of one QEMU, and every command that changed something. */
class FakeQemu {
  jobs = new Map<string, Record<string, unknown>>();
  nodes = new Set(['point0', 'disk0', 'point1', 'disk1']);
  status = 'running';
  devices: unknown[] = [];
  failing = '';
  readonly done: string[] = [];

  readonly qmp = {
    run: async (command: string, words: Record<string, unknown> = {}) => this.run(command, words),
  } as unknown as Qmp;

  private run(command: string, words: Record<string, unknown>): unknown {
    if (command === this.failing) throw new UnderstudyError('ERR_LAUNCH_FAILED', 'QEMU: no');
    if (command === 'query-block-jobs') return [...this.jobs.values()];
    if (command === 'query-jobs') return [...this.jobs.values()];
    if (command === 'query-named-block-nodes') {
      return [...this.nodes].map((name) => ({ 'node-name': name }));
    }
    if (command === 'query-status') return { status: this.status };
    if (command === 'query-block') return this.devices;
    this.done.push([command, ...Object.values(words)].map(String).join(' '));
    if (command === 'block-stream') this.job(String(words['job-id']), 'running', 0);
    if (command === 'block-job-cancel') {
      const { offset } = this.jobs.get(String(words.device))!;
      this.job(String(words.device), 'concluded', Number(offset), { error: 'Operation canceled' });
    }
    if (command === 'job-dismiss') this.jobs.delete(String(words.id));
    if (command === 'blockdev-del') this.nodes.delete(String(words['node-name']));
    return {};
  }

  job(id: string, status: string, offset: number, more: Record<string, unknown> = {}): void {
    const job = { device: id, id, status, offset, len: 100, 'io-status': 'ok', ...more };
    this.jobs.set(id, job);
  }
}

let qemu: FakeQemu;
let nowMs: number;
const clock = { ...systemClock, monotonicMs: () => nowMs };
let notes: Record<string, string | number | boolean>;
let said: string[];
let progress: number[];
let isAlone: boolean;
let isFull: boolean;
let damage: DamagedPlace[];
beforeEach(() => {
  qemu = new FakeQemu();
  nowMs = 0;
  [notes, said, progress, isAlone, isFull, damage] = [{}, [], [], false, false, []];
});

function launchOf(kind: 'drill' | 'failover' = 'failover'): Launch {
  const { volumes, ...point } = fakePoint('p');
  const [volume] = volumes;
  const write = async (change: () => void) => {
    if (isFull) throw new UnderstudyError('ERR_DISK_FULL', 'no room');
    change();
  };
  const launch: Partial<Launch> = {
    ...{ kind, notes: { ...notes }, clock: systemClock, runFolder: '/nowhere' },
    options: { standAlone: true, copyRateBytes: 7 },
    point: { ...point, volumes: [volume!, { ...volume!, volume: 'other' }] },
    damage: () => damage,
    say: (line) => void said.push(line),
    progress: (done) => void progress.push(done),
    remember: (changed: LaunchOptions) => write(() => void Object.assign(notes, changed)),
    standsAlone: () =>
      write(() => {
        isAlone = true;
      }),
  };
  return launch as Launch;
}

describe('the background copy', () => {
  it('copies one disk after the other, and lets go of each when that is flushed and noted', async () => {
    const copy = new BackgroundCopy(launchOf());
    await copy.step(qemu.qmp);
    expect(qemu.done).toEqual(['block-stream copy0 disk0 7 stop false']);
    qemu.job('copy0', 'running', 50);
    await copy.step(qemu.qmp);
    expect(progress.at(-1)).toBe(2048);
    qemu.job('copy0', 'concluded', 100);
    await copy.step(qemu.qmp);
    expect(qemu.done.slice(1).map((line) => line.split(' ')[0])).toEqual([
      ...['blockdev-reopen', 'job-dismiss', 'blockdev-del'],
    ]);
    expect(notes).toEqual({ alone0: true });
    expect(isAlone).toBe(false);
    await copy.step(qemu.qmp);
    qemu.job('copy1', 'concluded', 100);
    await copy.step(qemu.qmp);
    expect(await copy.step(qemu.qmp)).toEqual({ kind: 'alone' });
    expect(isAlone).toBe(true);
    expect([...qemu.nodes]).toEqual(['disk0', 'disk1']);
    expect(progress.at(-1)).toBe(8192);
  });

  it('that was not flushed, or could not be noted, has let nothing go', async () => {
    const copy = new BackgroundCopy(launchOf());
    qemu.job('copy0', 'concluded', 100);
    qemu.failing = 'blockdev-reopen';
    await expect(copy.step(qemu.qmp)).rejects.toMatchObject({ code: 'ERR_LAUNCH_FAILED' });
    expect(notes).toEqual({});
    qemu.failing = '';
    isFull = true;
    await copy.step(qemu.qmp);
    expect(said.at(-1)).toContain('no room');
    expect([...qemu.nodes]).toContain('point0');
    expect(qemu.jobs.has('copy0')).toBe(true);
    isFull = false;
    await copy.step(qemu.qmp);
    expect(notes).toEqual({ alone0: true });
    expect([...qemu.nodes]).not.toContain('point0');
  });

  it.each([['job-dismiss'], ['blockdev-del']])(
    'goes on in another life of staging that was killed at %s',
    async (command) => {
      qemu.job('copy0', 'concluded', 100);
      qemu.failing = command;
      await expect(new BackgroundCopy(launchOf()).step(qemu.qmp)).rejects.toThrow();
      expect(notes).toEqual({ alone0: true });
      qemu.failing = '';
      const next = new BackgroundCopy(launchOf());
      await next.step(qemu.qmp);
      expect(qemu.jobs.size).toBe(0);
      expect([...qemu.nodes]).not.toContain('point0');
      await next.step(qemu.qmp);
      expect(qemu.done.at(-1)).toBe('block-stream copy1 disk1 7 stop false');
    },
  );

  it('that ended with an error begins again', async () => {
    const copy = new BackgroundCopy(launchOf());
    qemu.job('copy0', 'concluded', 30, { error: 'Input/output error' });
    await copy.step(qemu.qmp);
    expect(said.at(-1)).toContain('Input/output error');
    expect(notes).toEqual({});
    await copy.step(qemu.qmp);
    expect(qemu.done.at(-1)).toBe('block-stream copy0 disk0 7 stop false');
  });

  it('goes past what is damaged, copies the rest, and is never complete until that is mended', async () => {
    const [first, second] = launchOf().point.volumes;
    damage = [{ volume: first!.volume, offset: 65_536, length: 65_536 }];
    const copy = new BackgroundCopy({ ...launchOf(), clock });
    const steps = async (count: number) => {
      for (let i = 1; i < count; i += 1) await copy.step(qemu.qmp);
      return copy.step(qemu.qmp);
    };
    await steps(1);
    qemu.job('copy0', 'paused', 30, { 'io-status': 'failed' });
    await steps(3);
    expect(qemu.done).toEqual([
      ...['block-stream copy0 disk0 7 stop false', 'block-job-cancel copy0 true'],
      ...['job-dismiss copy0', 'block-stream copy0 disk0 7 ignore false'],
    ]);
    qemu.job('copy0', 'concluded', 100, { error: 'Input/output error' });
    await steps(1);
    const told = `the copy of ${first!.volume} is not complete: point p is damaged at bytes 65536-131071`;
    expect(said.filter((line) => line.includes(told))).toHaveLength(1);
    // The other disk is copied meanwhile.
    await steps(1);
    qemu.job('copy1', 'concluded', 100);
    await steps(1);
    expect(said).toContain(`copies ${second!.volume} in the background`);
    expect(await steps(2)).toEqual({ kind: 'hurt' });
    expect(notes).toEqual({ alone1: true });
    expect(copy.readers).toEqual([0]);
    // Tried again after a while: it stops there again, or has been mended.
    nowMs += 60_000;
    await steps(1);
    expect(qemu.done.at(-1)).toBe('block-stream copy0 disk0 7 stop false');
    qemu.job('copy0', 'concluded', 100);
    expect(isAlone).toBe(false);
    await steps(1);
    expect(await steps(1)).toEqual({ kind: 'alone' });
    expect(isAlone).toBe(true);
    expect(said.filter((line) => line.includes('not complete'))).toHaveLength(1);
  });

  it('of what stands alone already copies nothing', async () => {
    notes = { alone0: true, alone1: true };
    qemu.nodes = new Set(['disk0', 'disk1']);
    const copy = new BackgroundCopy(launchOf());
    for (const _ of [1, 2]) await copy.step(qemu.qmp);
    expect(await copy.step(qemu.qmp)).toEqual({ kind: 'alone' });
    expect(qemu.done).toEqual([]);
  });

  it('of a drill is not flushed: its disks hold nothing that must last', async () => {
    qemu.job('copy0', 'concluded', 100);
    await new BackgroundCopy(launchOf('drill')).step(qemu.qmp);
    expect(qemu.done).toEqual(['job-dismiss copy0', 'blockdev-del point0']);
  });
});

describe('trouble', () => {
  const look = async () => {
    const copy = new BackgroundCopy(launchOf());
    return lookForTrouble(qemu.qmp, await copy.step(qemu.qmp), '/', damage.length > 0);
  };

  it('there is none', async () => {
    expect(await look()).toBe(null);
  });

  it('a paused copy is told, and goes on where there is room', async () => {
    qemu.job('copy0', 'paused', 30, { 'io-status': 'nospace' });
    expect(await look()).toMatch(/^the copy is paused, the guest runs: no room in \//);
    expect(qemu.done).toEqual(['block-job-resume copy0']);
  });

  it('a copy that somebody else has paused is none', async () => {
    qemu.job('copy0', 'paused', 30);
    expect(await look()).toBe(null);
  });

  it('a paused guest is told, and goes on; one that is paused by a hand stays so', async () => {
    qemu.status = 'io-error';
    qemu.devices = [{ device: '' }, { 'io-status': 'nospace' }];
    expect(await look()).toMatch(/^the guest is paused: no room in \//);
    expect(qemu.done.at(-1)).toBe('cont');
    qemu.devices = [{ 'io-status': 'failed' }];
    expect(await look()).toContain('an error of a disk');
    qemu.status = 'paused';
    qemu.done.length = 0;
    expect(await look()).toBe(null);
    expect(qemu.done).not.toContain('cont');
  });
});
