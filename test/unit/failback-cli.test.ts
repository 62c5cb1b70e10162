/** The commands of a failback against a service in this process: passes, the end, figures, refusals. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { CHUNK_BYTES, chunkCount } from '../../src/model/geometry.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import type { ApiFailback } from '../../src/staging/api-types.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend, fakeFailback, fakeJob, fakePoint } from './support/fake-backend.ts';

const JOB = 'j1';
const SIZES = { root: 5 * CHUNK_BYTES + 512, data: 3 * CHUNK_BYTES };
type Name = keyof typeof SIZES;
const names = Object.keys(SIZES) as Name[];
type Images = Readonly<Record<Name, Buffer>>;

let folder = '';
let server: Server | null = null;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-failback-'));
  writeFileSync(join(folder, 'token'), 'secret\n');
});
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  rmSync(folder, { recursive: true });
});

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
const chunkOf = (bytes: Buffer, chunk: number) =>
  bytes.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);

/** Points of two volumes, and a failback whose state a test moves on. */
class World {
  readonly random = new Random(7);
  readonly points = new Map<string, Images>();
  readonly told: { volume: string; point: string }[] = [];
  readonly asked: string[] = [];
  state: ApiFailback = { ...fakeFailback(JOB), phase: 'ready', lastPoint: null, written: [] };
  /** What was committed last has the earliest time. */
  isClockBehind = false;
  /** So many of the next requests are cut off. */
  broken = 0;
  onAsk: (url: string) => void = () => undefined;
  environment: Record<string, string> = {};

  add(id: string, images: Images): void {
    this.points.set(id, images);
    this.state = { ...this.state, newestPoint: id };
  }

  listed(id: string): ListedPoint {
    const volumes = names.map((volume) => ({
      ...{ volume, sizeBytes: SIZES[volume], sectorBytes: 512, generation: 'a', epoch: 1 },
      chainRoot: '',
    }));
    return { ...fakePoint(id), volumes };
  }

  image(id: string, volume: string): Buffer {
    const found = this.points.get(id)?.[volume as Name];
    if (found === undefined) throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`);
    return found;
  }

  async listen(): Promise<void> {
    const base = fakeBackend(Buffer.alloc(1));
    const written = async (_job: string, report: { volume: string; point: string }) => {
      this.told.push({ volume: report.volume, point: report.point });
      const isLast = this.told.filter(({ point }) => point === this.state.lastPoint).length === 2;
      if (isLast) this.state = { ...this.state, phase: 'done', message: 'home' };
      return this.state;
    };
    const finish = async () => {
      this.fence();
      return this.state;
    };
    const handler = createApiHandler(
      {
        ...base,
        store: {
          ...base.store,
          point: async (id) => this.listed(id),
          lastCommitted: async () => this.listed([...this.points.keys()].at(-1)!),
          points: async () => {
            const ids = [...this.points.keys()];
            return (this.isClockBehind ? ids : ids.reverse()).map((id) => this.listed(id));
          },
          openImage: async (id, volume) => this.reader(id, volume),
          compareChunks: async (id, volume, first, digests) =>
            this.compare(this.image(id, volume), first, digests),
          differences: (from, to, volume) => this.differences(from, to, volume),
        },
        jobs: { ...base.jobs, find: (id) => fakeJob({ id, kind: 'failback' }) },
        failbacks: { list: () => [this.state], find: () => this.state, finish, written },
      },
      'secret',
    );
    const listening = createServer((request, response) => {
      this.asked.push(`${request.method} ${request.url}`);
      this.onAsk(request.url ?? '');
      if (this.broken > 0) {
        this.broken -= 1;
        request.destroy();
      } else handler(request, response);
    });
    server = listening;
    await new Promise<void>((done) => listening.listen(0, '127.0.0.1', done));
    const { port } = listening.address() as AddressInfo;
    this.environment = {
      UNDERSTUDY_STAGING: `http://127.0.0.1:${port}`,
      UNDERSTUDY_TOKEN_FILE: join(folder, 'token'),
    };
  }

  /** The instance makes its last point, and is shut out. */
  fence(): void {
    this.add('p3', this.changed(this.points.get(this.state.newestPoint!)!, 1));
    this.state = { ...this.state, phase: 'fenced', lastPoint: 'p3' };
  }

  images(): Images {
    const random = (name: Name) => Buffer.from(this.random.bytes(SIZES[name]));
    return { root: random('root'), data: random('data') };
  }

  /** With one chunk of each volume otherwise. */
  changed(images: Images, chunk: number): Images {
    const other = (name: Name) => {
      const bytes = Buffer.from(images[name]);
      bytes[chunk * CHUNK_BYTES]! ^= 1;
      return bytes;
    };
    return { root: other('root'), data: other('data') };
  }

  private async reader(id: string, volume: string) {
    const image = this.image(id, volume);
    return {
      ...{ sizeBytes: image.length, etag: id, close: () => undefined, nextData: async () => null },
      read: async (offset: number, length: number) =>
        new Uint8Array(image.subarray(offset, offset + length)),
    };
  }

  private compare(image: Buffer, first: number, digests: Uint8Array) {
    const different = new Uint8Array(2);
    let count = 0;
    for (let i = 0; i < digests.length / 32; i += 1) {
      const own = sha256(chunkOf(image, first + i));
      if (own.equals(digests.subarray(32 * i, 32 * i + 32))) continue;
      different[i >> 3]! |= 1 << (i & 7);
      count += 1;
    }
    return { different, zero: new Uint8Array(2), count };
  }

  private async *differences(from: string, to: string, volume: string) {
    const after = this.image(to, volume);
    // As the store tells it: behind the end of an image there are zeros.
    const before = Buffer.alloc(after.length);
    this.image(from, volume).copy(before);
    for (let chunk = 0; chunk < chunkCount(after.length); chunk += 1) {
      const length = chunkOf(after, chunk).length;
      const isSame = chunkOf(before, chunk).equals(chunkOf(after, chunk));
      if (!isSame) yield { offset: chunk * CHUNK_BYTES, length };
    }
  }
}

const target = (name: string) => join(folder, `${name}.disk`);

/** Disks that hold what the original had, and a point that differs from it in one chunk of each. */
async function world(): Promise<{ now: World; old: Images }> {
  const now = new World();
  await now.listen();
  const old = now.images();
  for (const name of names) writeFileSync(target(name), old[name]);
  now.add('p2', now.changed(old, 0));
  return { now, old };
}

const failback = ({ environment }: World, ...words: string[]) =>
  runLine(['failback', ...words], environment);
const runAll = (now: World, ...words: string[]) =>
  failback(
    now,
    'run',
    '--server',
    'web1',
    '--map',
    ...names.map((n) => `${n}=${target(n)}`),
    ...words,
  );

const expectDisks = (images: Images) => {
  for (const name of names) {
    expect(readFileSync(target(name)).subarray(0, SIZES[name]).equals(images[name]), name).toBe(
      true,
    );
  }
};

describe('failback run', () => {
  it('writes pass after pass until the last point, and tells it, with the figures', async () => {
    const { now } = await world();
    let looks = 0;
    now.onAsk = (url) => {
      if (!url.endsWith(`/failbacks/${JOB}`)) return;
      looks += 1;
      if (looks === 3) now.add('p2b', now.changed(now.points.get('p2')!, 2));
      if (looks === 8) now.fence();
    };
    const { exitCode, out, err } = await runAll(now, '--every', '100ms', '--yes', '--json');
    expect(exitCode, err).toBe(0);
    const report = JSON.parse(out);
    expect(report).toMatchObject({ job: JOB, point: 'p3', phase: 'done', verified: true });
    expect(report.passes.map(({ point }: { point: string }) => point)).toEqual(['p2', 'p2b', 'p3']);
    const [root] = report.volumes;
    expect(root).toMatchObject({ volume: 'root', chunks: 6, different: 3, undo: null });
    // Later passes look only where two points differ.
    expect(report.passes[1].volumes[0]).toMatchObject({ chunks: 1, different: 1 });
    expect(now.told).toEqual(names.map((volume) => ({ volume, point: 'p3' })));
    expectDisks(now.points.get('p3')!);
  });

  it('reads back what it has written alone, where it is told to', async () => {
    const { now } = await world();
    const words = ['--finish', '--verify', 'written', '--yes', '--json'];
    const { exitCode, out, err } = await runAll(now, ...words);
    expect(exitCode, err).toBe(0);
    // Two passes wrote a chunk of each of two volumes.
    expect(JSON.parse(out)).toMatchObject({ verified: true, verifiedChunks: 4 });
    now.state = { ...now.state, phase: 'ready', lastPoint: null };
    const all = await runAll(now, '--once', '--yes', '--json');
    expect(JSON.parse(all.out)).toMatchObject({ verifiedChunks: 9 });
  });

  it('finishes by itself where it is told to, and leaves the rest of a larger disk', async () => {
    const { now } = await world();
    truncateSync(target('data'), SIZES.data + 1000);
    const { exitCode, out, err } = await runAll(now, '--finish', '--yes');
    expect(exitCode, err).toBe(0);
    expect(err).toMatch(/larger than data by 1000 B/);
    expect(out).toMatch(/root at p2: 1 of 6 chunks compared differed, 64.0 KiB written/);
    expect(out).toMatch(/verified: all of it was read back and is point p3/);
    expect(now.asked).toContain(`POST /v1/failbacks/${JOB}/finish`);
    expect(now.state.phase).toBe('done');
    expectDisks(now.points.get('p3')!);
  });

  it('stopped by a signal leaves a disk that the next run makes right', async () => {
    const { now } = await world();
    const stop = new AbortController();
    now.onAsk = (url) => {
      if (url.includes('/compare')) stop.abort();
    };
    const words = names.map((name) => `${name}=${target(name)}`);
    const line = ['failback', 'run', '--server', 'web1', '--map', ...words, '--yes'];
    const stopped = await runLine(line, now.environment, stop.signal);
    expect(stopped.exitCode).toBe(3);
    expect(stopped.err).toMatch(/stopped by a signal.*ERR_CLI_INTERRUPTED/);
    now.onAsk = () => undefined;
    expect((await runAll(now, '--finish', '--yes')).exitCode).toBe(0);
    expectDisks(now.points.get('p3')!);
  });

  it('takes the next point where its own was dropped meanwhile', async () => {
    const { now } = await world();
    let isDue = true;
    now.onAsk = (url) => {
      if (!isDue || !url.endsWith('/compare')) return;
      isDue = false;
      now.fence();
      now.points.delete('p2');
    };
    const { exitCode, err } = await runAll(now, '--yes');
    expect(exitCode, err).toBe(0);
    expect(err).toMatch(/point p2 is gone/);
    expectDisks(now.points.get('p3')!);
  });

  it('looks at all of a volume that has grown meanwhile, and refuses where it does not fit any more', async () => {
    const grow = async (targetBytes: number) => {
      const { now, old } = await world();
      const stale = Buffer.alloc(targetBytes - SIZES.data, 0x5a);
      writeFileSync(target('data'), Buffer.concat([old.data, stale]));
      const { fence } = now;
      now.fence = () => {
        fence.call(now);
        const { root, data } = now.points.get('p3')!;
        now.add('p3', { root, data: Buffer.concat([data, Buffer.alloc(CHUNK_BYTES)]) });
      };
      const words = ['--finish', '--verify', 'written', '--yes'];
      return { now, ...(await runAll(now, ...words)) };
    };
    const fits = await grow(SIZES.data + 2 * CHUNK_BYTES);
    expect(fits.exitCode, fits.err).toBe(0);
    const { data } = fits.now.points.get('p3')!;
    expect(readFileSync(target('data')).subarray(0, data.length).equals(data)).toBe(true);
    const small = await grow(SIZES.data + 512);
    expect(small.exitCode).toBe(6);
    expect(small.err).toMatch(/too small for data.*ERR_FAILBACK_TARGET/);
    expect(small.now.told).toEqual([]);
  });

  it('asks again where staging is away for a moment', async () => {
    const { now } = await world();
    let isDue = true;
    now.onAsk = (url) => {
      if (!isDue || !url.endsWith('/compare')) return;
      isDue = false;
      now.broken = 1;
    };
    now.fence();
    const { exitCode, err } = await runAll(now, '--yes');
    expect(exitCode, err).toBe(0);
    expect(err).toMatch(/asked again until it answers/);
    expectDisks(now.points.get('p3')!);
  }, 60_000);

  it('keeps what it overwrites, a file for each volume, to be put back', async () => {
    const { now, old } = await world();
    const undo = join(folder, 'undo');
    expect((await runAll(now, '--once', '--undo', undo, '--yes')).exitCode).toBe(0);
    expectDisks(now.points.get('p2')!);
    for (const [at, name] of names.entries()) {
      const line = ['undo', `${undo}.${at + 1}`, '--to', target(name), '--yes'];
      const { exitCode, out, err } = await failback(now, ...line);
      expect(exitCode, err).toBe(0);
      expect(out).toMatch(/1 chunks \(64.0 KiB\) put back and verified/);
    }
    expectDisks(old);
    expect(now.state.phase).toBe('ready');
  });

  it('writes a point without a failback, and tells nobody', async () => {
    const { now } = await world();
    now.state = { ...now.state, phase: 'done' };
    const { exitCode, out, err } = await runAll(now, '--point', 'latest', '--yes', '--json');
    expect(exitCode, err).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ job: null, phase: null, point: 'p2', verified: true });
    expect(now.told).toEqual([]);
    expectDisks(now.points.get('p2')!);
  });

  it('takes for latest what was committed last, though the clock of its machine is behind', async () => {
    const { now } = await world();
    now.add('p9', now.changed(now.points.get('p2')!, 2));
    now.isClockBehind = true;
    const { exitCode, out, err } = await runAll(now, '--point', 'latest', '--yes', '--json');
    expect(exitCode, err).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ point: 'p9' });
  });

  it.each([
    [['--map', 'root'], 2, /not VOLUME=DEV/],
    [['--map', 'root=/x', 'root=/y'], 2, /root is named twice/],
    [['--map', 'root=/x', 'data=/x'], 2, /\/x is named twice/],
    [['--volume', 'root'], 2, /belong together/],
    [[], 2, /Give --map/],
    [['--map', 'sda=/x'], 5, /no volume sda; it holds root, data/],
    [['--map', 'root=/nonexistent'], 6, /no such disk/],
    [['--map', 'root=/proc'], 6, /neither a block device/],
  ])('with %j is refused before anything is opened', async (words, code, why) => {
    const { now } = await world();
    const { exitCode, err } = await failback(now, 'run', '--server', 'web1', ...words, '--yes');
    expect(err).toMatch(why);
    expect(exitCode).toBe(code);
  });

  it('asks before it overwrites, and is refused where the failback is over or was cancelled', async () => {
    const { now, old } = await world();
    const unsure = await runAll(now);
    expect(unsure.exitCode).toBe(6);
    expect(unsure.err).toMatch(/Overwrite .*Nothing is kept/);
    expectDisks(old);
    now.onAsk = (url) => {
      if (url.includes('/compare')) now.state = { ...now.state, phase: 'cancelled' };
    };
    const cancelled = await runAll(now, '--yes');
    expect(cancelled.err).toMatch(/is cancelled .*ERR_FAILBACK_STATE/);
    now.onAsk = () => undefined;
    const none = await runAll(now, '--yes');
    expect(none.exitCode).toBe(5);
    expect(none.err).toMatch(/no failback of web1 is under way/);
  });
});

describe('failbacks', () => {
  it('are listed and shown with what is to be done next', async () => {
    const { now } = await world();
    now.state = { ...fakeFailback(JOB), fromPoint: 'p1' };
    const list = await failback(now, 'list');
    expect(list.out).toMatch(/JOB +SERVER +PHASE.*\n.*j1 +web1 +fenced.*write it home/);
    const show = await failback(now, 'show', JOB);
    expect(show.out).toMatch(/original: +aaaaaaaaaaaa, last point p1 \(held\)/);
    expect(show.out).toMatch(/2 of 3 chunks differed/);
    const json = await failback(now, 'show', JOB, '--json');
    expect(JSON.parse(json.out)).toEqual(now.state);
  });

  it('ask before the name changes hands, before the last cut, and before it is given back', async () => {
    const { now } = await world();
    for (const [words, why] of [
      [['start', '--server', 'web1', '--hardware', 'x'], /is web1 from now on/],
      [['finish', '--server', 'web1'], /Stop the services of web1/],
      [['cancel', '--server', 'web1'], /Give the name web1 back/],
    ] as const) {
      const { exitCode, err } = await failback(now, ...words);
      expect(exitCode).toBe(6);
      expect(err).toMatch(why);
    }
    expect(now.asked.filter((line) => line.startsWith('POST'))).toEqual([]);
    const finished = await failback(now, 'finish', '--server', 'web1', '--yes', '--json');
    expect(JSON.parse(finished.out)).toMatchObject({ phase: 'fenced', lastPoint: 'p3' });
  });
});
