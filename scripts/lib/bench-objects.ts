/**
 * Counts requests to a bucket: a start, an initial sync of 256 MiB that does not compress, points of 1 MiB
 * each that are sealed one by one (with the upkeep that they bring), a start again, and a restore without
 * a service. Rows of the table on standard output. Its folder is named on the command line.
 */
import { randomBytes } from 'node:crypto';
import { systemClock } from '../../src/base/clock.ts';
import { createLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { openRepositoryIn } from '../../src/store/offline.ts';
import { openReaderPlace, openServicePlace } from '../../src/store/place.ts';
import type { Ingest, Store } from '../../src/store/types.ts';
import { Random } from '../../test/simulation/random.ts';
import { FailingProxy } from '../../test/tools/failing-proxy.ts';
import { startS3 } from '../../test/tools/s3-server.ts';
import { commit, drain, SourceVolume, sync } from '../../test/unit/support/store-world.ts';

const MIB = 2 ** 20;
const POINTS = 20;
const CHUNKS_PER_POINT = 16;
const random = new Random(1);
const world = { clock: systemClock, log: createLog({ level: 'error' }) };
const volume = new SourceVolume('/dev/bench', 256 * MIB, 'a'.repeat(32));
let timeMs = Date.now();

const server = await startS3();
const proxy = await FailingProxy.start(server.endpoint);
const given = `s3://${await server.makeBucket()}/bench`;
const options = { endpoint: proxy.endpoint };

/** Requests since the last row, without those for leases, which come with time. */
function row(what: string, how: string, parts = 1): void {
  const counts = new Map<string, number>();
  for (const line of proxy.seen.filter((each) => !/(?:\/|%2F)lease(?:\/|%2F)/.test(each))) {
    const [method = '', url = ''] = line.split(' ');
    const kind = url.includes('list-type=2') ? 'LIST' : method;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  proxy.reset();
  const kinds = [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
  const each = kinds.map(([kind, count]) => `${Number((count / parts).toFixed(2))} ${kind}`);
  console.log(`| ${what} | ${each.join(', ') || 'none'} | ${how} |`);
}

async function withStore(use: (store: Store) => Promise<void>): Promise<void> {
  const data = `${process.argv[2]}/data`;
  const place = await openServicePlace(data, given, options, world);
  const store = await openNodeStore(data, world.log, { place });
  try {
    await use(store);
  } finally {
    await store.close();
    await place.close();
  }
}

async function sealPoint(store: Store, ingest: Ingest): Promise<void> {
  await drain(ingest, 0, volume);
  timeMs += 1000;
  await store.seal((await commit(ingest, [volume], timeMs)).id);
}

/** Whole chunks of bytes that do not compress. */
function change(): void {
  for (let i = 0; i < CHUNKS_PER_POINT; i += 1) {
    const chunk = random.below(volume.content.length / CHUNK_BYTES);
    volume.write(random, chunk * CHUNK_BYTES, CHUNK_BYTES);
    volume.content.set(randomBytes(CHUNK_BYTES), chunk * CHUNK_BYTES);
  }
}

await withStore(async (store) => {
  row('bucket: first start', 'requests; a probe, format.json, listings');
  volume.content.set(randomBytes(volume.content.length));
  const ingest = await store.beginIngest('web', [volume.description]);
  await sync(ingest, 0, volume);
  await sealPoint(store, ingest);
  row('bucket: initial sync of 256 MiB', 'requests; packs go in parts of 8 MiB');
  for (let i = 0; i < POINTS; i += 1) {
    change();
    await sealPoint(store, ingest);
  }
  row('bucket: a point of 1 MiB', `requests each, mean of ${POINTS}, with upkeep`, POINTS);
  await ingest.close();
});
proxy.reset();
await withStore(async () => row('bucket: start', `requests, with ${POINTS + 1} points there`));
proxy.reset();
const place = await openReaderPlace(given, options, world);
const repository = await openRepositoryIn(place, world.log);
const [newest] = await repository.points({});
const image = await repository.openImage(newest!.id, volume.volume);
for (let at = 0; at < volume.content.length; at += MIB) {
  const read = await image.read(at, MIB);
  if (Buffer.compare(read, volume.content.subarray(at, at + MIB)) !== 0) throw new Error('differs');
}
row('bucket: restore of 256 MiB', 'requests of a reader without a service, bytes compared');
image.close();
await repository.close();
await place.close();
await proxy.stop();
await server.stop();
