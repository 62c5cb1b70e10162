/**
 * Reading a repository in a bucket that is 30 ms away: time, requests and bytes of each way to read, before a
 * real S3 server of the tests and a proxy with the delay (slow-proxy.ts). The repository has one volume of
 * 128 MiB, half of it random and half text, and twenty points that have changed 64 KiB and 4 KiB here and there.
 * Rows of a table on standard output. Its folder is named on the command line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock } from '../../src/base/clock.ts';
import { createLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { BLOCK_BYTES, CHUNK_BYTES } from '../../src/model/geometry.ts';
import { exportImage, imageSourceOf } from '../../src/recovery/export.ts';
import { directoryPlace } from '../../src/store/copy/copy-target.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { type OfflineRepository, openRepositoryIn } from '../../src/store/offline.ts';
import { openReaderPlace, openServicePlace } from '../../src/store/place.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { Random } from '../../test/simulation/random.ts';
import { startS3 } from '../../test/tools/s3-server.ts';
import { commit, drain, SourceVolume, sync } from '../../test/unit/support/store-world.ts';

const MIB = 2 ** 20;
const SIZE = 128 * MIB;
const DELAY_MS = Number(process.env.DELAY_MS ?? 30);
const POINTS = 20;
const RANGES = 128;
const work = process.argv[2]!;
const data = `${work}/data`;
const main = process.env.BENCH_MAIN ?? resolve(import.meta.dirname, '../../src/cli/main.ts');
const world = { clock: systemClock, log: createLog({ level: 'error' }) };
const random = new Random(1);
const volume = new SourceVolume('/dev/bench', SIZE, 'a'.repeat(32));
const children: ChildProcess[] = [];

/** The first line that a program prints, and how to ask for another one. */
async function start(words: readonly string[]) {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...words], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  process.once('exit', () => child.kill('SIGKILL'));
  children.push(child);
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => (await lines.next()).value as string;
  return { child, next, first: await next() };
}

const server = await startS3();
const bucket = `s3://${await server.makeBucket()}/far`;

/** Text that compresses to about a third, and bytes that do not compress. */
function fill(): void {
  volume.content.set(randomBytes(SIZE / 2));
  const words = Buffer.from(randomBytes(2 ** 14).toString('hex'));
  for (let at = SIZE / 2; at < SIZE; at += 100) {
    const from = random.below(words.length - 100);
    volume.content.set(words.subarray(from, from + Math.min(100, SIZE - at)), at);
  }
}

function change(): void {
  for (const bytes of [CHUNK_BYTES, BLOCK_BYTES]) {
    for (let i = 0; i < 32; i += 1) {
      const at = random.below(SIZE / bytes) * bytes;
      volume.write(random, at, bytes);
      volume.content.set(randomBytes(bytes), at);
    }
  }
}

async function make(): Promise<void> {
  const place = await openServicePlace(data, bucket, { endpoint: server.endpoint }, world);
  const store = await openNodeStore(data, world.log, { place });
  const ingest = await store.beginIngest('web', [volume.description]);
  fill();
  await sync(ingest, 0, volume);
  const firstMs = Date.now() - POINTS * 1000;
  for (let i = 0; i <= POINTS; i += 1) {
    if (i > 0) change();
    await drain(ingest, 0, volume);
    await store.seal((await commit(ingest, [volume], firstMs + i * 1000)).id);
  }
  await ingest.close();
  await store.close();
  await place.close();
}

await make();
const proxy = await start([
  resolve(import.meta.dirname, 'slow-proxy.ts'),
  server.endpoint,
  `${DELAY_MS}`,
]);

async function measured(what: string, run: () => Promise<string>): Promise<void> {
  proxy.child.stdin!.write('\n');
  await proxy.next();
  const startMs = performance.now();
  const how = await run();
  const seconds = (performance.now() - startMs) / 1000;
  proxy.child.stdin!.write('\n');
  const { requests, bytes } = JSON.parse(await proxy.next());
  const mib = Math.round(bytes / MIB);
  console.log(`| ${what} | ${seconds.toFixed(2)} s, ${requests} requests, ${mib} MiB | ${how} |`);
}

function assertSame(bytes: Uint8Array, at: number): void {
  if (Buffer.compare(bytes, volume.content.subarray(at, at + bytes.length)) === 0) return;
  throw new Error(`the bytes at ${at} differ`);
}

async function withRepository(
  given: string,
  use: (repository: OfflineRepository, newest: ListedPoint) => Promise<string>,
): Promise<string> {
  const place = await openReaderPlace(given, { endpoint: proxy.first }, world);
  const repository = await openRepositoryIn(place, world.log);
  try {
    return await use(repository, (await repository.lastCommitted('web'))!);
  } finally {
    await repository.close();
    await place.close();
  }
}

async function restored(given: string): Promise<string> {
  const out = `${work}/restored`;
  await withRepository(given, async (repository, newest) => {
    const image = await repository.openImage(newest.id, volume.volume);
    await exportImage(imageSourceOf(image), {
      ...{ disk: nodeDisk, out, replace: true, stop: new AbortController().signal },
      onProgress: () => undefined,
    });
    image.close();
    return '';
  });
  assertSame(await nodeDisk.readFile(out), 0);
  rmSync(out);
  return 'written, read back, bytes compared';
}

await measured('`repo restore` of 128 MiB', () => restored(bucket));
await measured('`repo check --read-data`', () =>
  withRepository(bucket, async (repository) => {
    const { findings, bytesRead } = await repository.check({ readData: true });
    if (findings.length > 0) throw new Error(findings[0]!.detail);
    return `${POINTS + 1} points, ${Math.round(bytesRead / MIB)} MiB in packs`;
  }),
);
await measured('`repo copy` to a directory', () =>
  withRepository(bucket, async (repository) => {
    const place = directoryPlace(nodeDisk, `${work}/copy`, `${work}/copy`);
    const { points, bytesWritten } = await repository.copy(place, {});
    return `${points} points, ${Math.round(bytesWritten / MIB)} MiB written`;
  }),
);

process.env.UNDERSTUDY_STAGING = '';
const staging = await start([
  ...[main, 'staging', 'run', '--data', data, '--repo', bucket, '--s3-endpoint', proxy.first],
  ...['--listen', '127.0.0.1:0'],
]);
const url = /https?:\/\/[^\s"]+/.exec(staging.first)![0];
const token = Buffer.from(await nodeDisk.readFile(`${data}/token`))
  .toString()
  .trim();
const headers = { authorization: `Bearer ${token}` };
const points = (await (await fetch(`${url}/v1/points?limit=1`, { headers })).json()) as {
  points: { id: string }[];
};
const image = `${url}/v1/points/${points.points[0]!.id}/volumes/%2Fdev%2Fbench/image`;

async function range(at: number, length: number): Promise<void> {
  const wanted = { ...headers, range: `bytes=${at}-${at + length - 1}` };
  const answer = await fetch(image, { headers: wanted });
  assertSame(new Uint8Array(await answer.arrayBuffer()), at);
}

await measured('the image, whole, over HTTP', async () => {
  let at = 0;
  const answer = await fetch(image, { headers });
  for await (const part of answer.body!) {
    assertSame(part, at);
    at += part.length;
  }
  if (at !== SIZE) throw new Error(`${at} bytes`);
  return 'one request, 128 MiB';
});
await measured('ranges of 256 KiB in sequence', async () => {
  for (let i = 0; i < RANGES; i += 1) await range(i * 256 * 1024, 256 * 1024);
  return `${RANGES} requests one after the other, as nbdkit asks for a guest that reads on`;
});
await measured('ranges of 64 KiB at random', async () => {
  let left = RANGES;
  const reader = async () => {
    for (; left > 0; left -= 1) await range(random.below(SIZE / 65536) * 65536, 65536);
  };
  await Promise.all(Array.from({ length: 4 }, reader));
  return `${RANGES} requests, 4 at a time`;
});
await measured('`image export` of 128 MiB', async () => {
  const out = `${work}/exported`;
  const words = ['image', 'export', '--staging', url, '--token-file', `${data}/token`];
  const child = spawn(
    process.execPath,
    [main, ...words, '--point', 'latest', '--volume', volume.volume, '--out', out],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const code = await new Promise((done) => child.once('close', done));
  if (code !== 0) throw new Error(`image export: ${code}`);
  assertSame(await nodeDisk.readFile(out), 0);
  return 'by the service, written, proved, bytes compared';
});
staging.child.kill('SIGTERM');
await new Promise((done) => staging.child.once('close', done));

console.log('');
for (let round = 0; round < 3; round += 1) {
  await measured('near: `repo restore` from a directory', () => restored(`${work}/copy`));
}
for (const child of children) child.kill('SIGKILL');
await server.stop();
