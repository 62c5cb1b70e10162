/** `repo copy` from end to end on real files: offline, by a service, refusals, what is shown. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { runStaging } from '../../src/staging/service.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { Random } from '../simulation/random.ts';
import { runLine } from './support/command-line.ts';
import { commit, drain, SourceVolume, sync } from './support/store-world.ts';

let folder = '';
let data = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-copy-'));
  data = join(folder, 'data');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const run = (...line: string[]) => runLine(line);

/** A data directory with so many points of one server; returns their ids. */
async function makePoints(count: number): Promise<string[]> {
  const random = new Random(count);
  const volume = new SourceVolume('/dev/vda', 6 * CHUNK_BYTES, 'c'.repeat(32));
  volume.write(random, 0, volume.content.length);
  const store = await openNodeStore(data, silentLog);
  const ingest = await store.beginIngest('web', [volume.description]);
  await sync(ingest, 0, volume);
  const ids: string[] = [];
  for (let i = 0; i < count; i += 1) {
    volume.write(random, random.below(5 * CHUNK_BYTES), 5000);
    await drain(ingest, 0, volume);
    ids.push((await commit(ingest, [volume], 1_700_000_000_000 + i * 1000)).id);
  }
  await ingest.close();
  await store.close();
  return ids;
}

describe('repo copy', () => {
  it('copies a directory; the copy is checked, restored, listed as held, and copied on', async () => {
    const ids = await makePoints(3);
    const to = join(folder, 'second');
    const first = await run(
      'repo',
      'copy',
      '--repo',
      data,
      '--to',
      to,
      '--verify',
      'new',
      '--json',
    );
    expect(first.err).toBe('');
    expect(JSON.parse(first.out)).toMatchObject({
      ...{ place: to, points: 3, held: 3, skipped: [], isNoted: true },
      verified: { findings: [] },
    });
    expect((await run('repo', 'check', '--repo', to, '--read-data')).exitCode).toBe(0);
    const image = join(folder, 'image.raw');
    const restore = ['--point', 'latest', '--volume', '/dev/vda', '--out'];
    expect((await run('repo', 'restore', '--repo', to, ...restore, image)).exitCode).toBe(0);
    const listed = await run('point', 'list', '--repo', to, '--limit', '2', '--json');
    const points = JSON.parse(listed.out) as { id: string; state: string }[];
    expect(points.map(({ id, state }) => [id, state])).toEqual([
      [ids[2], 'sealed'],
      [ids[1], 'sealed'],
    ]);
    const held = await run('point', 'list', '--repo', data, '--server', 'web');
    expect(
      held.out
        .split('\n')
        .slice(1, 4)
        .every((line) => line.includes(`here, ${to}`)),
    ).toBe(true);
    const shown = await run('point', 'show', 'latest', '--repo', to);
    expect(shown.out).toContain(ids[2]!);
    const again = await run('repo', 'copy', '--repo', data, '--to', to);
    expect(again.out).toMatch(/^copied 0 points .*holds 3\n$/);
    const third = join(folder, 'third');
    const on = await run('repo', 'copy', '--repo', to, '--to', third, '--points', 'newest:1');
    expect(on.out).toMatch(/^copied 1 points .*holds 1\n$/);
    expect((await run('repo', 'check', '--repo', third)).exitCode).toBe(0);
  });

  it('refuses places that are the source, lie in it, have it inside, or hold other things', async () => {
    await makePoints(1);
    const link = join(folder, 'link');
    symlinkSync(data, link);
    const full = join(folder, 'full');
    mkdirSync(full);
    writeFileSync(join(full, 'letter.txt'), 'dear');
    const places = [
      data,
      join(data, 'repo'),
      join(data, 'x/y'),
      link,
      join(link, 'z'),
      folder,
      full,
    ];
    for (const to of places) {
      const { exitCode, err } = await run('repo', 'copy', '--repo', data, '--to', to);
      expect(err, to).toContain('(ERR_COPY_PLACE)');
      expect(exitCode).toBe(6);
    }
    const inner = await run(
      'repo',
      'copy',
      '--repo',
      join(data, 'repo'),
      '--to',
      join(data, 'copy'),
    );
    expect(inner.err).toContain('(ERR_COPY_PLACE)');
    expect(readdirSync(full)).toEqual(['letter.txt']);
    expect(readdirSync(data)).not.toContain('x');
    for (const wrong of [
      ['--points', 'newest'],
      ['--rate', 'fast'],
      ['--verify', 'some'],
      ['--keep', 'x'],
    ]) {
      const to = join(folder, 'new');
      expect((await run('repo', 'copy', '--repo', data, '--to', to, ...wrong)).exitCode).toBe(2);
    }
    expect((await run('repo', 'copy', '--to', folder)).err).toContain('give --repo, or --staging');
  });

  it('asks the service, which copies beside its work and shows where points are held', async () => {
    const ids = await makePoints(2);
    const to = join(folder, 'second');
    const copy = { places: [to], everyMs: null, bytesPerSecond: 0, verify: 'new' as const };
    const service = await runStaging({
      ...{ dataDir: data, listen: '127.0.0.1:0', keep: [{ everyMs: 0, forMs: 1e13 }], copy },
      log: silentLog,
    });
    const ask = ['--staging', service.url, '--token-file', join(data, 'token')];
    try {
      const { out, exitCode } = await run('repo', 'copy', '--to', to, ...ask, '--json');
      expect(exitCode).toBe(0);
      expect(JSON.parse(out)).toMatchObject({ place: to, points: 2, held: 2 });
      const shown = await run('point', 'list', ...ask);
      expect(shown.out).toContain(`here, ${to}`);
      const point = await run('point', 'show', ids[0]!, ...ask);
      expect(point.out).toMatch(/held in: here, .*second \(read back 20/);
      const copies = await run('repo', 'copies', ...ask);
      expect(copies.out).toMatch(/second +2 .* ago .* ago .*when asked/);
      const elsewhere = await run('repo', 'copy', '--to', join(folder, 'other'), ...ask);
      expect(elsewhere.err).toContain('(ERR_COPY_PLACE)');
      const offline = await run('repo', 'copy', '--to', to, '--rate', '1MB/s', ...ask);
      expect(offline.exitCode).toBe(2);
      // An offline copy beside the service: the same place, the same copy.
      const beside = await run('repo', 'copy', '--repo', data, '--to', to);
      expect(beside.out).toMatch(/^copied 0 points .*holds 2\n$/);
    } finally {
      await service.close();
    }
    expect((await run('repo', 'check', '--repo', to, '--read-data')).exitCode).toBe(0);
  });

  it('leaves out what is damaged at the source, says so, and exits with 4', async () => {
    await makePoints(3);
    const repo = join(data, 'repo');
    for (const name of readdirSync(join(repo, 'packs'))) {
      rmSync(join(repo, 'packs', name), { recursive: true });
    }
    const to = join(folder, 'second');
    const { exitCode, out } = await run('repo', 'copy', '--repo', data, '--to', to);
    expect(exitCode).toBe(4);
    expect(out).toContain('damaged: ');
    expect((await run('repo', 'check', '--repo', to, '--read-data')).exitCode).toBe(0);
  });
});
