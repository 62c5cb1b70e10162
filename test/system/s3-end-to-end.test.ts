/**
 * The whole program with its repository in a bucket of a real server (test/tools/s3-server.ts): replicate,
 * lose the bucket for a while, lose the staging machine, restore from the bucket alone.
 */
import { randomBytes } from 'node:crypto';
import { openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FailingProxy } from '../tools/failing-proxy.ts';
import { type S3Server, startS3 } from '../tools/s3-server.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Daemon, Staging, startAgent, understudy } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 1 << 20;

let server: S3Server;
let proxy: FailingProxy;
beforeAll(async () => {
  server = await startS3();
  proxy = await FailingProxy.start(server.endpoint);
});
afterAll(async () => {
  await proxy?.stop();
  await server?.stop();
});

interface Place {
  readonly words: readonly string[];
  readonly volume: string;
  write(seed: number): void;
}

/** A file to replicate, and the words that name a repository in a new bucket. */
async function makePlace(scratch: Scratch): Promise<Place> {
  const volume = scratch.path('volume');
  writeFileSync(volume, Buffer.concat([randomBytes(20 * MIB), Buffer.alloc(12 * MIB)]));
  const repo = `s3://${await server.makeBucket()}/one/two`;
  const fd = openSync(volume, 'r+');
  return {
    words: ['--repo', repo, '--s3-endpoint', proxy.endpoint],
    volume,
    write: (seed) => {
      writeSync(fd, randomBytes(300_000), 0, 300_000, (seed * 1_234_567) % (30 * MIB));
    },
  };
}

const agentOf = (scratch: Scratch, staging: Staging, volume: string): Daemon =>
  startAgent(scratch, staging, { volumes: [volume], words: ['--tracker', 'scan'] });

/** From the bucket alone, byte for byte. */
async function expectRestored(scratch: Scratch, place: Place, point: string): Promise<void> {
  const out = scratch.path(`restored-${point}`);
  const line = ['repo', 'restore', ...place.words, '--point', point, '--volume', place.volume];
  const { exitCode, err } = await understudy([...line, '--out', out]);
  expect(`${exitCode} ${err}`).toMatch(/^0 /);
  expect(readFileSync(out).equals(readFileSync(place.volume))).toBe(true);
}

describe('a repository in a bucket', () => {
  it('is sealed, checked and restored from without the staging machine', async () => {
    await withScratch('s3', async (scratch) => {
      proxy.reset();
      const place = await makePlace(scratch);
      const staging = await Staging.start(scratch, { words: place.words });
      const agent = agentOf(scratch, staging, place.volume);
      await staging.waitForPoints(2);
      const atStart = proxy.seen.length;
      place.write(1);
      const point = await staging.createPoint(scratch.server);
      await agent.stop();
      expect(await staging.daemon.stop()).toBe(0);
      const whileRunning = proxy.seen.slice(atStart);
      await expectRestored(scratch, place, point.id);
      const check = await understudy(['repo', 'check', ...place.words, '--read-data', '--json']);
      expect(check.exitCode, check.err).toBe(0);
      expect(JSON.parse(check.out)).toMatchObject({ findings: [] });
      const stats = await understudy(['repo', 'stats', ...place.words, '--json']);
      expect(JSON.parse(stats.out)).toMatchObject({ servers: 1, stagedPoints: 0 });
      // Nothing is listed for a point: only at the start, for leases, and by readers.
      expect(whileRunning.some((line) => line.startsWith('PUT'))).toBe(true);
      const listings = whileRunning.filter((line) => line.includes('list-type=2'));
      expect(listings.filter((line) => !line.includes('%2Flease%2F'))).toEqual([]);
    });
  });

  it('that is away is waited for; with --durability object nothing is acknowledged meanwhile', async () => {
    await withScratch('s3-away', async (scratch) => {
      proxy.reset();
      const place = await makePlace(scratch);
      const words = [...place.words, '--durability', 'object'];
      const staging = await Staging.start(scratch, { words });
      const agent = agentOf(scratch, staging, place.volume);
      await staging.waitForPoints(1);
      await staging.createPoint(scratch.server);
      expect((await staging.server(scratch.server)).durability).toBe('object');
      const epochs = async () => (await staging.server(scratch.server)).volumes[0]!.epoch;
      proxy.plan = () => 'reset';
      place.write(2);
      const line = ['point', 'create', '--server', scratch.server, '--wait', '--timeout', '6s'];
      const { exitCode, err } = await staging.run(...line);
      expect(exitCode, err).toBe(3);
      expect(err).toContain('ERR_POINT_TIMEOUT');
      const before = await epochs();
      await new Promise((done) => setTimeout(done, 3000));
      expect(await epochs()).toBe(before);
      proxy.plan = () => null;
      const point = await staging.createPoint(scratch.server);
      expect(await epochs()).toBeGreaterThan(before);
      // Acknowledged means sealed: the machine may be lost now.
      await agent.kill();
      await staging.daemon.kill();
      await expectRestored(scratch, place, point.id);
    });
  });

  it('is gone on with by a new staging machine, once it is told to', async () => {
    await withScratch('s3-adopt', async (scratch) => {
      proxy.reset();
      const place = await makePlace(scratch);
      const first = await Staging.start(scratch, { words: place.words });
      const agent = agentOf(scratch, first, place.volume);
      await first.waitForPoints(2);
      const { id } = await first.createPoint(scratch.server);
      await agent.stop();
      expect(await first.daemon.stop()).toBe(0);
      const dataFolder = scratch.path('other');
      const fresh = ['staging', 'run', '--data', dataFolder, '--listen', '127.0.0.1:0'];
      const refused = new Daemon(scratch, 'refused', [...fresh, ...place.words]);
      expect(await refused.exit()).toBe(4);
      expect(refused.errors).toMatch(/--adopt[\s\S]*ERR_JOURNAL_DAMAGED/);
      const second = await Staging.start(scratch, {
        dataFolder,
        words: [...place.words, '--adopt'],
      });
      expect((await second.points()).map((point) => point.id)).toContain(id);
      place.write(3);
      agentOf(scratch, second, place.volume);
      await waitFor('a new point', async () => (await second.newest())?.id !== id, {
        timeoutMs: 120_000,
      });
      const point = await second.createPoint(scratch.server);
      await second.export(point.id, place.volume, scratch.path('exported'));
      expect(readFileSync(scratch.path('exported')).equals(readFileSync(place.volume))).toBe(true);
    });
  });

  it('is refused with one clear line where it cannot be used', async () => {
    await withScratch('s3-refused', async (scratch) => {
      proxy.reset();
      const endpoint = ['--s3-endpoint', proxy.endpoint, '--listen', '127.0.0.1:0'];
      const start = async (name: string, ...words: string[]) => {
        const line = ['staging', 'run', '--data', scratch.path(name), ...endpoint, ...words];
        const daemon = new Daemon(scratch, name, line);
        const exitCode = await daemon.exit();
        return `${exitCode} ${daemon.errors}`;
      };
      const bucket = await server.makeBucket();
      const missing = await start('missing', '--repo', 's3://test-no-such-bucket/x');
      expect(missing).toMatch(/^5 error: .*s3:\/\/test-no-such-bucket\/x.*ERR_OBJECTS_NO_BUCKET/);
      const wrong = await start('wrong', '--repo', 's3:/x');
      expect(wrong).toMatch(/^2 error: .*ERR_USAGE/);
      expect(await start('rate', '--repo', `s3://${bucket}`, '--s3-max-rate', 'x')).toMatch(/^2 /);
      proxy.plan = () => '403';
      const denied = await start('denied', '--repo', `s3://${bucket}/x`);
      expect(denied).toMatch(/^3 error: .*ERR_OBJECTS_DENIED/);
    });
  });
});
