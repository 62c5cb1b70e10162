/** P7: the document of the format is enough. A program written from it alone gives back the same bytes. */
import { execFile } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { attachLoop, digestOfFile, makeFileSystem, mount, sh } from './helpers/device.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { type Ran, Staging, startAgent, understudy } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';
import { RecordLoad } from './helpers/writers.ts';

const MIB = 1 << 20;

/** More than one leaf; the last chunk has three blocks, the last block one sector. */
const UNEVEN_BYTES = 66 * MIB + 2 * 4096 + 512;

const reader = resolve(import.meta.dirname, '../independent/reader.py');

/** Runs the independent reader to its end. */
const independently = (...words: string[]): Promise<Ran> =>
  new Promise((done) => {
    execFile('python3', ['-B', reader, ...words], { timeout: 120_000 }, (error, out, err) => {
      const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      done({ exitCode, out, err });
    });
  });

const filesUnder = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());

/** Deltas of several epochs: points between them were dropped. */
const foldsIn = (data: string): string[] =>
  filesUnder(join(data, 'repo/deltas')).filter((path) => {
    const [, from, to] = /(\d+)-(\d+)\.delta$/.exec(path) ?? [];
    return Number(to) - Number(from) > 1;
  });

const basesIn = (data: string): string[] => filesUnder(join(data, 'repo/bases'));

const writeRandom = (device: string, ...where: string[]): string =>
  sh('dd', 'if=/dev/urandom', `of=${device}`, ...where, 'oflag=direct', 'status=none');

/** Staging looks for points to drop once a minute; here every second and a half. */
const hurried = {
  NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(
    'const wait = setTimeout;' +
      'globalThis.setTimeout = (f, ms, ...rest) => wait(f, ms === 60000 ? 1500 : ms, ...rest);',
  )}`,
};

/** A data directory of a disk in use and a quiet one, with points, folds and bases; its service is gone. */
async function manyPoints(
  scratch: Scratch,
): Promise<{ data: string; busy: string; quiet: string }> {
  const busy = attachLoop(scratch, scratch.path('busy'), 24 * MIB).device;
  const quiet = attachLoop(scratch, scratch.path('quiet'), UNEVEN_BYTES).device;
  makeFileSystem(busy, 'ext4');
  const unmount = mount(scratch, busy, scratch.path('mounted'), { kind: 'ext4' });
  const load = await RecordLoad.start(scratch, scratch.path('mounted'), 'load', 60);
  writeRandom(quiet, 'bs=1M', 'count=2');
  writeRandom(quiet, 'bs=512', 'count=17', `seek=${(66 * MIB) / 512}`);

  const words = ['--keep', 'all=3s,2s=1h'];
  const first = await Staging.start(scratch, { words });
  const { port, dataFolder: data } = first;
  const agent = startAgent(scratch, first, { volumes: [busy, quiet], cutInterval: '400ms' });
  await first.waitForPoints(8);
  writeRandom(quiet, 'bs=512', 'count=1', `seek=${UNEVEN_BYTES / 512 - 1}`);
  expect(await first.daemon.stop()).toBe(0);

  const listen = `127.0.0.1:${port}`;
  const options = { dataFolder: data, listen, words, environment: hurried };
  const second = await Staging.start(scratch, options);
  await waitFor('folds and bases', () => foldsIn(data).length >= 4 && basesIn(data).length >= 2, {
    timeoutMs: 120_000,
  });
  await load.stop();
  unmount();
  const last = await second.createPoint(scratch.server);
  expect(last.missingVolumes).toEqual([]);
  expect(await agent.stop()).toBe(0);
  expect(await second.daemon.stop()).toBe(0);
  return { data, busy, quiet };
}

/** What the service says of the points, in the words of the reader's list. */
async function listedByService(scratch: Scratch, data: string): Promise<string[]> {
  const staging = await Staging.start(scratch, { dataFolder: data });
  const points = await staging.points();
  expect(await staging.daemon.stop()).toBe(0);
  return points.map((point) => {
    const volumes = point.volumes.map(({ volume, sizeBytes }) => `${volume}=${sizeBytes}`);
    return [point.id, point.server, point.time, ...volumes].join(' ');
  });
}

/** Flips a byte of the place where the packs hold the first block of a device, as it is. */
function damageFirstBlock(data: string, device: string): string {
  const block = Buffer.alloc(4096);
  const fd = openSync(device, 'r');
  readSync(fd, block);
  closeSync(fd);
  const packs = filesUnder(join(data, 'repo/packs'));
  const holding = packs.filter((path) => readFileSync(path).includes(block));
  expect(holding).toHaveLength(1);
  const at = readFileSync(holding[0]!).indexOf(block);
  const pack = openSync(holding[0]!, 'r+');
  writeSync(pack, Buffer.of(block[100]! ^ 0x10), 0, 1, at + 100);
  closeSync(pack);
  return holding[0]!;
}

describe('a reader written from the document alone', () => {
  it('lists the same points, restores the same bytes, and refuses what is damaged', async () => {
    await withScratch('independent', async (scratch) => {
      const { data, busy, quiet } = await manyPoints(scratch);
      const lines = await listedByService(scratch, data);
      const listed = await independently('list', data);
      expect(listed).toMatchObject({ exitCode: 0, err: '' });
      expect(listed.out.trimEnd().split('\n').sort()).toEqual(lines.toSorted());

      const ids = lines.map((line) => line.split(' ')[0]!);
      const [ours, theirs] = [scratch.path('ours'), scratch.path('theirs')];
      let compared = 0;
      for (const line of lines) {
        const [point, , , ...volumes] = line.split(' ');
        for (const volume of volumes.map((each) => each.slice(0, each.lastIndexOf('=')))) {
          const words = ['--repo', data, '--point', point!, '--volume', volume, '--out', ours];
          const restored = await understudy(['repo', 'restore', ...words]);
          expect(restored.exitCode, restored.err).toBe(0);
          const read = await independently('restore', join(data, 'repo'), point!, volume, theirs);
          expect(read, `${point} ${volume}`).toEqual({ exitCode: 0, out: '', err: '' });
          expect(digestOfFile(theirs), `${point} ${volume}`).toBe(digestOfFile(ours));
          expect(statSync(theirs).blocks * 512).toBeLessThan(24 * MIB);
          // The newest one was cut when nothing was written any more.
          if (point === ids[0]) expect(digestOfFile(theirs)).toBe(digestOfFile(volume));
          for (const path of [ours, theirs]) rmSync(path);
          compared += 1;
        }
      }
      expect(compared).toBeGreaterThanOrEqual(10);

      const newest = ids[0]!;
      const unknown = await independently('restore', data, newest, '/dev/other', theirs);
      expect(unknown).toMatchObject({ exitCode: 5, err: expect.stringMatching(/^error: .+\n$/) });
      expect((await independently('restore', data, `${newest}0`, busy, theirs)).exitCode).toBe(5);

      const pack = damageFirstBlock(data, quiet);
      const refused = await independently('restore', data, newest, quiet, theirs);
      expect(refused).toMatchObject({ exitCode: 4, out: '' });
      expect(refused.err).toMatch(/^error: .+ is damaged .+\n$/);
      expect(refused.err).toContain(pack);
      expect(existsSync(theirs)).toBe(false);
      expect(await independently('restore', data, newest, busy, theirs)).toMatchObject({
        exitCode: 0,
        err: '',
      });
    });
  });
});
