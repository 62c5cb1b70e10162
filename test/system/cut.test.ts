// P2 on real loop devices: every cut under load is a state in which a power cut at T could have
// left both volumes, judged by the oracle of ordered writes; with a rule of the cut taken out, the
// oracle notices. And a tracker outlives its agent, however it dies.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { detachTracker } from '../../src/native/index.ts';
import {
  createLoopDevice,
  diskFolder,
  type LoopDevice,
  memoryFolder,
} from '../tools/loop-device.ts';
import { Checker, type LoadOptions, Writer } from '../tools/ordered-load.ts';
import { omissions, Replica, type ReplicaOptions } from '../tools/replica.ts';

const MIB = 1024 * 1024;
const SIZE_BYTES = 128 * MIB;
const isFull = Boolean(process.env.TEST_FULL);
const cleanups: (() => unknown)[] = [];
let instances = 0;

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

function pair(parent: string): LoopDevice[] {
  return [1, 2].map(() => {
    const device = createLoopDevice(SIZE_BYTES, parent);
    cleanups.push(() => device.remove());
    return device;
  });
}

function loadOn(paths: string[], options: Partial<LoadOptions>): LoadOptions {
  const log = `/dev/shm/understudy-cut-test-${process.pid}-${instances}`;
  cleanups.push(() => rmSync(log, { force: true }));
  return { paths, blocks: SIZE_BYTES / 4096, seed: Date.now(), log, ...options };
}

const isRight = (verdict: string) => verdict.startsWith('ok');

interface Trial {
  parent: string;
  cuts: number;
  load?: Partial<LoadOptions>;
  replica?: Partial<ReplicaOptions>;
  /** End at the first cut that is wrong. */
  stopsAtBad?: boolean;
}

/** Cuts under load; the oracle's verdicts on those that ended valid. */
async function tryCuts(trial: Trial): Promise<{ verdicts: string[]; passes: number[] }> {
  const paths = pair(trial.parent).map((device) => device.path);
  const instance = `cut-test-${process.pid}-${instances++}`;
  const replica = await Replica.open({ paths, instance, buffers: 32, ...trial.replica });
  cleanups.push(() => replica.closeAndDetach());
  const load = loadOn(paths, trial.load ?? {});
  const checker = new Checker(load);
  replica.onPiece = (volume, offset, { length }) => checker.changed(volume, offset, length);
  const writer = await Writer.start(load);
  await replica.readAll();
  const verdicts: string[] = [];
  const passes: number[] = [];
  const isOver = () => trial.stopsAtBad && verdicts.some((verdict) => !isRight(verdict));
  for (let index = 0; index < trial.cuts && !isOver(); index++) {
    const { result, faults } = await replica.cut(3000);
    expect(faults).toEqual([]);
    if (result.outcome !== 'valid') continue;
    passes.push(result.passes);
    verdicts.push(await checker.judge(replica.images, result.timeMs));
    await sleep(20);
  }
  await writer.stop();
  await checker.close();
  return { verdicts, passes };
}

describe('every valid cut is a prefix of the ordered writes', () => {
  const cuts = isFull ? 100 : 15;
  const trials: { name: string; least: number; trial: Trial }[] = [
    {
      name: '10,000 writes/s in memory',
      least: 15,
      trial: { parent: memoryFolder, cuts, load: { rate: 10_000 } },
    },
    { name: 'all writes that memory takes', least: 10, trial: { parent: memoryFolder, cuts } },
    {
      name: 'all writes, half of them hot',
      least: 5,
      trial: { parent: memoryFolder, cuts, load: { hotPercent: 50 } },
    },
    {
      name: '10,000 writes/s on a disk',
      least: 10,
      trial: { parent: diskFolder, cuts, load: { rate: 10_000 } },
    },
    {
      name: 'all writes that a disk takes',
      least: 1,
      trial: { parent: diskFolder, cuts, load: { rate: 30_000 } },
    },
    {
      name: 'buffers far smaller than the set: spilled and overridden',
      least: 10,
      trial: {
        parent: memoryFolder,
        cuts,
        load: { rate: 40_000 },
        replica: { buffers: 2, bufferBytes: MIB },
      },
    },
    {
      name: 'marks of 64 KiB',
      least: 5,
      trial: {
        parent: memoryFolder,
        cuts,
        load: { rate: 5_000 },
        replica: { memoryBudgetBytes: 16 * 1024 },
      },
    },
    {
      name: 'one in a thousand completions unseen',
      least: 10,
      trial: { parent: diskFolder, cuts, load: { rate: 5_000 }, replica: { loseOneIn: 997 } },
    },
  ];
  for (const { name, least, trial } of trials) {
    it(name, async () => {
      const { verdicts } = await tryCuts(trial);
      expect(verdicts.filter((verdict) => !isRight(verdict))).toEqual([]);
      expect(verdicts.length).toBeGreaterThanOrEqual(least);
    });
  }

  it('needs more than one pass under full load', async () => {
    const { passes } = await tryCuts({ parent: memoryFolder, cuts: 5 });
    expect(Math.max(...passes)).toBeGreaterThan(1);
  });
});

describe('a rule taken out shows (canaries)', () => {
  const hasBad = async (trial: Trial) => {
    const { verdicts } = await tryCuts({ ...trial, stopsAtBad: true });
    return verdicts.some((verdict) => !isRight(verdict));
  };

  it('validation: the first reading accepted', async () => {
    const rules = { skipsValidation: true };
    expect(await hasBad({ parent: memoryFolder, cuts: 60, replica: { rules } })).toBe(true);
  });

  it('writes in flight: neither completions nor counts followed', async () => {
    const rules = { ignoresFlight: true };
    expect(await hasBad({ parent: diskFolder, cuts: 160, replica: { rules } })).toBe(true);
  });

  it('marks at queue and issue', async () => {
    const omit = omissions.queueMarks | omissions.issueMarks;
    expect(await hasBad({ parent: memoryFolder, cuts: 60, replica: { omit } })).toBe(true);
  });
});

/** Starts an agent in little, lets it make some cuts, and kills it. Gives what it found. */
async function runAndKill(instance: string, pairs: string[], lines: number, afterMs: number) {
  const script = join(import.meta.dirname, '..', 'tools', 'surviving-agent.ts');
  const child = spawn(process.execPath, [script, instance, ...pairs], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const output = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await output.next();
  for (let line = 0; line < lines; line++) await output.next();
  await sleep(afterMs);
  child.kill('SIGKILL');
  await once(child, 'exit');
  return JSON.parse(first.value ?? 'null') as {
    isFresh: boolean;
    volumes: { generation: string; committedEpoch: number }[];
  };
}

describe('an agent that is killed', () => {
  it('is followed by one that goes on where it was, and nothing is lost', async () => {
    const devices = pair(memoryFolder);
    const instance = `kill-test-${process.pid}`;
    const paths = devices.map((device) => device.path);
    const images = devices.map((device) => join(device.directory, 'replica'));
    for (const image of images) {
      writeFileSync(image, '');
      truncateSync(image, SIZE_BYTES);
    }
    cleanups.push(() => detachTracker(instance));
    const pairs = paths.map((path, index) => `${path}=${images[index]}`);
    const writer = await Writer.start(loadOn(paths, { rate: 20_000 }));
    let generations: string[] = [];
    let committedEpoch = 0;
    for (let round = 0; round < (isFull ? 50 : 8); round++) {
      const found = await runAndKill(instance, pairs, round % 4, Math.random() * 60);
      expect(found.isFresh, `round ${round}`).toBe(round === 0);
      const now = found.volumes.map((volume) => volume.generation);
      if (round > 0) expect(now).toEqual(generations);
      expect(found.volumes[0]!.committedEpoch).toBeGreaterThanOrEqual(committedEpoch);
      generations = now;
      committedEpoch = found.volumes[0]!.committedEpoch;
    }
    await writer.stop();
    const replica = await Replica.open({ paths, instance });
    cleanups.push(() => replica.close());
    expect(replica.volumes.map((volume) => volume.fresh)).toEqual([false, false]);
    images.forEach((image, index) => {
      replica.images[index]!.set(readFileSync(image));
    });
    await replica.settle();
    expect(await replica.differences(0)).toEqual([]);
    expect(await replica.differences(1)).toEqual([]);
    expect(committedEpoch).toBeGreaterThan(0);
  });
});
