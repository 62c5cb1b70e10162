/** The commands of a failback against a service in this process: passes, the end, figures, refusals. */
import { linkSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { runLine } from './support/command-line.ts';
import {
  type Images,
  JOB,
  names,
  SIZES,
  target,
  useFailbackWorld,
  type World,
  world,
} from './support/failback-world.ts';
import { fakeFailback } from './support/fake-backend.ts';

const place = useFailbackWorld();
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
  });

  it('keeps what it overwrites, a file for each volume, to be put back', async () => {
    const { now, old } = await world();
    const undo = join(place.folder, 'undo');
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

  it('keeps anew in the same file once the disk was put back from it, and used', async () => {
    const { now, old } = await world();
    const undo = join(place.folder, 'undo');
    const words = ['--volume', 'root', '--to', target('root'), '--once', '--undo', undo, '--yes'];
    const runOnce = () => failback(now, 'run', '--server', 'web1', ...words);
    const putBack = (...more: string[]) =>
      failback(now, 'undo', undo, '--to', target('root'), '--yes', ...more);
    expect((await runOnce()).exitCode).toBe(0);
    expect((await putBack()).exitCode).toBe(0);
    const used = Buffer.from(old.root);
    used[9] = used[9]! ^ 1;
    writeFileSync(target('root'), used);
    const unasked = await putBack();
    expect(unasked.exitCode).toBe(6);
    expect(unasked.err).toMatch(/put back on .*--again/);
    expect(readFileSync(target('root')).equals(used)).toBe(true);
    expect((await runOnce()).exitCode).toBe(0);
    expect((await putBack()).exitCode).toBe(0);
    expect(readFileSync(target('root')).equals(used)).toBe(true);
    const again = await putBack('--again');
    expect(again.out).toMatch(/1 chunks .* put back and verified/);
  });

  it('has its file for itself, under whatever name, until it ends', async () => {
    const { now } = await world();
    const alias = join(place.folder, 'alias');
    linkSync(target('root'), alias);
    const line = (path: string) => ['run', '--server', 'web1', '--map', `root=${path}`, '--yes'];
    let second = { exitCode: 0, out: '', err: '' };
    let undo = second;
    let isDue = true;
    now.onAsk = async (url) => {
      if (!isDue || !url.endsWith('/compare')) return;
      isDue = false;
      second = await failback(now, ...line(alias), '--once');
      const file = join(place.folder, 'undo');
      undo = await failback(now, 'undo', file, '--to', alias, '--yes');
      now.fence();
    };
    const words = ['--undo', join(place.folder, 'undo')];
    const first = await failback(now, ...line(target('root')), ...words);
    expect(first.exitCode, first.err).toBe(0);
    for (const refused of [second, undo]) {
      expect(refused.exitCode).toBe(6);
      expect(refused.err).toMatch(/alias: it is in use \(another failback run or undo\)/);
      expect(refused.err).toContain('ERR_FAILBACK_TARGET');
    }
    const later = await failback(now, ...line(alias), '--point', 'latest');
    expect(later.exitCode, later.err).toBe(0);
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
      [
        ['start', '--server', 'web1', '--hardware', 'x'],
        /a{12} is web1 now, connected \(continuous\).*: it is refused.* is machine b{12}, .*j1 \(up\), .*asked last/,
      ],
      [['finish', '--server', 'web1'], /Stop the services of web1/],
      [['cancel', '--server', 'web1'], /Give the name web1 back/],
    ] as const) {
      const { exitCode, err } = await failback(now, ...words);
      expect(exitCode).toBe(6);
      expect(err).toMatch(why);
    }
    const asked = now.asked.filter((line) => line.startsWith('POST'));
    expect(asked).toEqual(['POST /v1/failbacks/preview']);
    now.isInstanceNew = true;
    const unseen = await failback(now, 'start', '--server', 'web1', '--job', 'j1');
    expect(unseen.err).toMatch(/web1 is the recovery instance, that of job j1 .*not shown itself/);
    // There is nothing to be asked where it cannot be.
    const unknown = await failback(now, 'start', '--server', 'nobody', '--job', 'j1');
    expect(unknown.exitCode).toBe(5);
    expect(unknown.err).toMatch(/no server "nobody"/);
    expect(unknown.err).not.toContain('Go on?');
    const finished = await failback(now, 'finish', '--server', 'web1', '--yes', '--json');
    expect(JSON.parse(finished.out)).toMatchObject({ phase: 'fenced', lastPoint: 'p3' });
  });
});
