/** P7: the documents of the format are enough. A program written from them alone gives the same bytes. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type S3Server, startS3 } from '../tools/s3-server.ts';
import { attachLoop, digestOfFile, makeFileSystem, mount, sh } from './helpers/device.ts';
import {
  download,
  filesUnder,
  flipped,
  foldsIn,
  hurried,
  independently,
  readerFolder,
} from './helpers/independent.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Staging, startAgent, understudy } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';
import { RecordLoad } from './helpers/writers.ts';

const MIB = 1 << 20;

/** More than one leaf; the last chunk has three blocks, the last block one sector. */
const UNEVEN_BYTES = 66 * MIB + 2 * 4096 + 512;

const basesIn = (data: string): string[] => filesUnder(join(data, 'repo/bases'));

const writeRandom = (device: string, ...where: string[]): string =>
  sh('dd', 'if=/dev/urandom', `of=${device}`, ...where, 'oflag=direct', 'status=none');

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
async function listedByService(
  scratch: Scratch,
  data: string,
  words: readonly string[] = [],
): Promise<string[]> {
  const staging = await Staging.start(scratch, { dataFolder: data, words });
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

/** A term before which the sequence of a point, and `more`, was the last; made by the document too. */
async function makeTerm(data: string, point: string, more: number): Promise<string> {
  const found = filesUnder(join(data, 'repo/points')).find((path) => path.includes(point))!;
  const last = JSON.parse(readFileSync(found).subarray(36).toString()).sequence + more;
  mkdirSync(join(data, 'repo/terms'));
  const path = join(data, 'repo/terms/0000000005.term');
  const lines = [
    `import struct, sys; sys.path.insert(0, ${JSON.stringify(readerFolder)})`,
    'from files import checksum',
    `term = b'US-TERM ' + struct.pack('<HHIQQQ16s', 1, 0, 64, 5, ${last}, 0, b'')`,
    `open(${JSON.stringify(path)}, 'wb').write(term + struct.pack('<Q', checksum(term)))`,
  ];
  sh('python3', '-B', '-c', lines.join('\n'));
  return path;
}

describe('a reader written from the documents alone', () => {
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
      // The newest ones and the oldest: what lies between is more of the same (all of them with --full).
      const some = process.env.TEST_FULL ? lines : [...lines.slice(0, 3), ...lines.slice(-3)];
      for (const line of some) {
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

      // An encrypted copy of a plain repository keeps the names of its contents.
      const [key, copy] = [await makeKey(scratch, 'key'), scratch.path('copy')];
      const to = ['--to', copy, '--to-key-file', key, '--points', 'newest:2'];
      expect((await understudy(['repo', 'copy', '--repo', data, ...to])).exitCode).toBe(0);
      expect(readFileSync(join(copy, 'format.json'), 'utf8')).toContain('"sha-256"');
      const withKey = ['--key-file', key, 'restore', copy, newest, quiet, theirs];
      expect(await independently(...withKey)).toEqual({ exitCode: 0, out: '', err: '' });
      expect(digestOfFile(theirs)).toBe(digestOfFile(quiet));
      rmSync(theirs);
      const notSealed = await independently('--key-file', key, 'list', data);
      expect(notSealed).toMatchObject({ exitCode: 6, out: '' });
      expect(notSealed.err).toMatch(/^error: .+ is not encrypted, and a key was given\n$/);

      const term = await makeTerm(data, newest, -1);
      const older = await independently('list', data);
      expect(older).toMatchObject({ exitCode: 0, err: `left out: point ${newest} is stale\n` });
      expect(older.out.trimEnd().split('\n')).toHaveLength(lines.length - 1);
      const stale = ['--point', newest, '--volume', quiet, '--out', ours];
      expect((await understudy(['repo', 'restore', '--repo', data, ...stale])).exitCode).toBe(5);
      expect((await independently('restore', data, newest, quiet, theirs)).exitCode).toBe(5);
      rmSync(term);

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

async function makeKey(scratch: Scratch, name: string): Promise<string> {
  const path = scratch.path(name);
  expect((await understudy(['repo', 'key', 'create', '--out', path])).exitCode).toBe(0);
  return path;
}

function makePassphrase(scratch: Scratch, name: string, text: string): string {
  writeFileSync(scratch.path(name), text, { mode: 0o600 });
  return scratch.path(name);
}

/** A file that is replicated, and what it held at points that are held. */
class Source {
  readonly volume: string;
  readonly digests = new Map<string, string>();
  private readonly scratch: Scratch;
  private readonly file: number;

  constructor(scratch: Scratch) {
    this.scratch = scratch;
    this.volume = scratch.path('volume');
    writeFileSync(this.volume, randomBytes(3 * MIB));
    this.file = openSync(this.volume, 'r+');
    writeSync(this.file, randomBytes(512), 0, 512, UNEVEN_BYTES - 512);
  }

  /** Runs a service and an agent for `count` points that are held, and ends both. */
  async run(
    data: string,
    words: readonly string[],
    count: number,
    until = async (): Promise<void> => undefined,
  ): Promise<void> {
    const staging = await Staging.start(this.scratch, {
      ...{ dataFolder: data, words, environment: hurried },
    });
    const { server } = this.scratch;
    const keep = async (policy: string): Promise<void> => {
      const kept = await staging.run('server', 'keep', server, '--keep', policy, '--yes');
      expect(kept.exitCode, kept.err).toBe(0);
    };
    const options = { volumes: [this.volume], cutInterval: '400ms', words: ['--tracker', 'scan'] };
    const agent = startAgent(this.scratch, staging, options);
    const already = (await staging.points()).length;
    await staging.waitForPoints(already + 1);
    // No point may end before it is held, however long that takes.
    await keep('all=1h');
    for (let n = 0; n < count; n += 1) {
      const seed = this.digests.size + 1;
      writeSync(this.file, randomBytes(70_000), 0, 70_000, (seed * 1_234_567) % (2 * MIB));
      writeSync(this.file, Buffer.alloc(9000), 0, 9000, (seed * 777_777) % (2 * MIB));
      const { id } = await staging.createPoint(server);
      this.digests.set(id, digestOfFile(this.volume));
      const held = await staging.run('point', 'hold', id, '--reason', 'a test compares it');
      expect(held.exitCode, held.err).toBe(0);
    }
    await keep('all=5s,2s=1h');
    await until();
    expect(await agent.stop()).toBe(0);
    expect(await staging.daemon.stop()).toBe(0);
  }

  /** Every held point, byte for byte; `place` is what the reader is told, and `key` how to open it. */
  async expectRestored(key: readonly string[], place: string): Promise<void> {
    const out = this.scratch.path('restored');
    for (const [point, digest] of this.digests) {
      const read = await independently(...key, 'restore', place, point, this.volume, out);
      expect(read, point).toEqual({ exitCode: 0, out: '', err: '' });
      expect(digestOfFile(out), point).toBe(digest);
      rmSync(out);
    }
  }

  /** Restores the first and the newest held point: right bytes or a clear error. How many failed. */
  async failuresOf(key: readonly string[], place: string): Promise<number> {
    const out = this.scratch.path('restored');
    const held = [...this.digests];
    let failures = 0;
    for (const [point, digest] of [held[0]!, held.at(-1)!]) {
      const ran = await independently(...key, 'restore', place, point, this.volume, out);
      expect(existsSync(out), ran.err).toBe(ran.exitCode === 0);
      if (ran.exitCode === 0) {
        expect(digestOfFile(out), point).toBe(digest);
        rmSync(out);
        continue;
      }
      expect([4, 6], ran.err).toContain(ran.exitCode);
      expect(ran.err).toMatch(/(^|\n)error: \S+.+\n$/);
      failures += 1;
    }
    return failures;
  }
}

/** What is read for a restore, one file of each kind after the other with a byte changed. */
async function expectDamageTold(
  source: Source,
  key: readonly string[],
  repo: string,
): Promise<void> {
  const kinds = ['packs', 'deltas', 'bases', 'points', 'keys', 'terms', 'bundles', 'format.json'];
  const files = filesUnder(repo);
  for (const kind of kinds) {
    const path = files.findLast((each) => each.startsWith(join(repo, kind)));
    if (path === undefined) continue;
    for (const place of [(size: number) => size >> 1, (size: number) => size - 20, () => 20]) {
      await flipped([path], place, () => source.failuresOf(key, repo));
    }
  }
  const packs = files.filter((path) => path.endsWith('.pack') && statSync(path).size > MIB / 4);
  expect(packs).not.toEqual([]);
  const middle = (size: number) => size >> 1;
  const failures = await flipped(packs, middle, () => source.failuresOf(key, repo));
  expect(failures).toBeGreaterThan(0);
}

async function expectRefused(key: readonly string[], place: string, why: RegExp): Promise<void> {
  const ran = await independently(...key, 'list', place);
  expect(ran).toMatchObject({ exitCode: 6, out: '' });
  expect(ran.err).toMatch(/^error: [^\n]+\n$/);
  expect(ran.err).toMatch(why);
}

describe('an encrypted repository in a directory', () => {
  it('is opened by key file and passphrase, and by nothing else; damage is told', async () => {
    await withScratch('independent-keys', async (scratch) => {
      const source = new Source(scratch);
      const data = scratch.path('data');
      const byKey = ['--key-file', await makeKey(scratch, 'key')];
      const passphrase = makePassphrase(scratch, 'passphrase', 'Schlüssel zum Å \nnot this\n');
      const byPassphrase = ['--passphrase-file', passphrase];
      await source.run(data, byKey, 2);
      const add = ['repo', 'key', 'add', '--repo', data, ...byKey];
      const added = await understudy([...add, '--new-passphrase-file', passphrase]);
      expect(added.exitCode, added.err).toBe(0);
      const rotated = await understudy(['repo', 'key', 'rotate', '--repo', data, ...byKey]);
      expect(rotated.exitCode, rotated.err).toBe(0);
      await source.run(data, byPassphrase, 2, async () => {
        const isThere = () => foldsIn(data).length >= 2 && basesIn(data).length >= 1;
        await waitFor('folds and a base', isThere, { timeoutMs: 120_000 });
      });

      const repo = join(data, 'repo');
      for (const kind of ['holds', 'policies'])
        expect(filesUnder(join(repo, kind))).not.toEqual([]);
      const lines = await listedByService(scratch, data, byKey);
      for (const key of [byKey, byPassphrase]) {
        const listed = await independently(...key, 'list', data);
        expect(listed).toMatchObject({ exitCode: 0, err: '' });
        expect(listed.out.trimEnd().split('\n').sort()).toEqual(lines.toSorted());
        await source.expectRestored(key, repo);
      }

      const wrong = ['--key-file', await makeKey(scratch, 'other')];
      await expectRefused(wrong, data, /the key is wrong/);
      const other = makePassphrase(scratch, 'other-words', 'Schlüssel zum Å\n');
      await expectRefused(['--passphrase-file', other], data, /the key is wrong/);
      await expectRefused([], data, /is encrypted: give --key-file or --passphrase-file/);

      await expectDamageTold(source, byKey, repo);
      const points = filesUnder(join(repo, 'points'));
      const list = () => independently(...byKey, 'list', repo);
      const damaged = await flipped(points.slice(0, 1), () => 100, list);
      expect(damaged.exitCode).toBe(4);
      expect(damaged.err).toMatch(/^error: .+\.point, block 0: is damaged or not authentic .+\n$/);
      expect(damaged.out.split('\n')).toHaveLength(points.length);
    });
  });
});

describe('an encrypted repository in a bucket', () => {
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3();
  });
  afterAll(async () => {
    await server?.stop();
  });

  it('is read from a copy of its objects, bundles and terms too; damage is told', async () => {
    await withScratch('independent-s3', async (scratch) => {
      const source = new Source(scratch);
      const [data, repo] = [scratch.path('data'), scratch.path('objects')];
      const bucket = await server.makeBucket();
      const key = ['--key-file', await makeKey(scratch, 'key')];
      const place = ['--repo', `s3://${bucket}/one/two`, '--s3-endpoint', server.endpoint];
      await source.run(data, [...place, ...key], 2);
      await source.run(data, [...place, ...key], 2);
      const lines = await listedByService(scratch, data, [...place, ...key]);
      await download(server.client, bucket, 'one/two', repo);

      const bundles = filesUnder(join(repo, 'bundles'));
      expect(bundles.length).toBeGreaterThanOrEqual(2);
      expect(filesUnder(join(repo, 'terms')).length).toBeGreaterThanOrEqual(2);
      const listed = await independently(...key, 'list', repo);
      expect(listed).toMatchObject({ exitCode: 0, err: '' });
      expect(listed.out.trimEnd().split('\n').sort()).toEqual(lines.toSorted());
      await source.expectRestored(key, repo);

      await expectRefused(['--key-file', await makeKey(scratch, 'other')], repo, /key is wrong/);
      await expectDamageTold(source, key, repo);
      const list = () => independently(...key, 'list', repo);
      const damaged = await flipped(bundles, () => 60, list);
      expect(damaged.exitCode).toBe(4);
      const told = damaged.err.match(/error: .+\.bundle: the directory's checksum is wrong .+\n/g);
      expect(told).toHaveLength(bundles.length);
    });
  });
});
