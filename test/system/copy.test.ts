/**
 * Copies to a bucket of a real server (test/tools/s3-server.ts tells which): by the command line, by a
 * service, from the bucket to another one, and restored from there.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { Random } from '../simulation/random.ts';
import { type S3Server, startS3 } from '../tools/s3-server.ts';
import { runLine } from '../unit/support/command-line.ts';
import { commit, drain, SourceVolume, sync } from '../unit/support/store-world.ts';

let server: S3Server;
let folder = '';
beforeAll(async () => {
  server = await startS3();
  folder = mkdtempSync(join(tmpdir(), 'understudy-copy-'));
});
afterAll(async () => {
  await server?.stop();
  if (folder !== '') rmSync(folder, { recursive: true, force: true });
});

const run = (...line: string[]) => runLine(line);

const random = new Random(7);
const volume = new SourceVolume('/dev/vda', 40 * CHUNK_BYTES, 'c'.repeat(32));

async function makePoints(data: string, count: number): Promise<void> {
  const store = await openNodeStore(data, silentLog);
  const ingest = await store.beginIngest('web', [volume.description]);
  if (volume.epoch === 0) {
    volume.write(random, 0, volume.content.length);
    await sync(ingest, 0, volume);
  }
  for (let i = 0; i < count; i += 1) {
    volume.write(random, random.below(30 * CHUNK_BYTES), 5000);
    await drain(ingest, 0, volume);
    await commit(ingest, [volume], 1_700_000_000_000 + volume.epoch * 1000);
  }
  await ingest.close();
  await store.close();
}

/** A bundle that cannot be read, and a pack with a content that is wrong. */
async function repairsInPlace(Bucket: string, data: string, at: readonly string[]): Promise<void> {
  const { client } = server;
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }));
  const keys = Contents.flatMap(({ Key }) => Key ?? []);
  for (const [pattern, offset] of [
    [/\.bundle$/, 20],
    [/\.pack$/, 200],
  ] as const) {
    const Key = keys
      .filter((key) => pattern.test(key))
      .sort()
      .at(-1)!;
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }));
    const bytes = await Body!.transformToByteArray();
    bytes[offset]! ^= 1;
    await client.send(new PutObjectCommand({ Bucket, Key, Body: bytes }));
  }
  expect((await run('repo', 'check', ...at, '--read-data')).exitCode).toBe(4);
  const plan = await run('repo', 'repair', ...at, '--from', data);
  expect(plan.out).toContain('2 findings; give --yes to do it');
  const done = await run('repo', 'repair', ...at, '--from', data, '--yes');
  expect([done.exitCode, done.out]).toEqual([0, expect.stringContaining('all repaired')]);
  expect((await run('repo', 'check', ...at, '--read-data')).out).toContain('all well');
}

describe('a copy in a bucket of a real server', () => {
  it('is made, made again, copied on, and restored from', async () => {
    const data = join(folder, 'data');
    const [first, second] = [await server.makeBucket(), await server.makeBucket('versioned')];
    const there = `s3://${first}/understudy`;
    const to = ['--to', there, '--to-s3-endpoint', server.endpoint];
    await makePoints(data, 3);
    const made = await run('repo', 'copy', '--repo', data, ...to, '--verify', 'new', '--json');
    expect(made.err).toBe('');
    const report = JSON.parse(made.out);
    expect(report).toMatchObject({ place: there, points: 3, isNoted: true });
    expect(report.verified.findings).toEqual([]);
    await makePoints(data, 1);
    const again = JSON.parse((await run('repo', 'copy', '--repo', data, ...to, '--json')).out);
    expect(again).toMatchObject({ points: 1, held: 4 });
    expect(again.bytesWritten).toBeLessThan(report.bytesWritten / 4);
    const onward = [
      ...['--repo', there, '--s3-endpoint', server.endpoint],
      ...['--to', `s3://${second}`, '--to-s3-endpoint', server.endpoint],
    ];
    const third = await run('repo', 'copy', ...onward, '--json');
    expect(JSON.parse(third.out)).toMatchObject({ points: 4, held: 4, isNoted: true });
    const at = ['--repo', there, '--s3-endpoint', server.endpoint];
    for (const place of [there, `s3://${second}`]) {
      const from = ['--repo', place, '--s3-endpoint', server.endpoint];
      const check = await run('repo', 'check', ...from, '--read-data');
      expect(check.out).toContain('all well');
      const out = join(folder, `${place.length}.raw`);
      const wanted = ['--point', 'latest', '--volume', '/dev/vda', '--out', out];
      expect((await run('repo', 'restore', ...from, ...wanted)).exitCode).toBe(0);
    }
    await repairsInPlace(first, data, at);
    const inner = ['--repo', there, '--s3-endpoint', server.endpoint, '--to', `${there}/inner`];
    expect((await run('repo', 'copy', ...inner)).err).toContain('(ERR_COPY_PLACE)');
    const absent = ['--to', 's3://no-such-bucket-at-all/x', '--to-s3-endpoint', server.endpoint];
    const refused = await run('repo', 'copy', '--repo', data, ...absent);
    expect(refused.err).toMatch(/^error: .*\(ERR_OBJECTS_NO_BUCKET\)\nhint: .*\n$/);
  });
});
