/**
 * One repository of many small chunks, measured: `bench-repository.ts CHUNKS FOLDER` prints JSON. Sealing a
 * point with a fixed change must not cost more in a larger repository. With `--build` it is only made: the
 * memory of the process that measures is the store's.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { CatalogClient } from '../../src/store/catalog/catalog-client.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { countingDisk, noCounts } from './counting-disk.ts';
import { ManyChunks } from './small-contents.ts';

const CHANGED_CHUNKS = 16;
const POINTS = 15;
const START_MS = Date.UTC(2026, 0, 1);

const [chunks, folder] = [Number(process.argv[2]), join(process.argv[3]!, 'data')];
const counts = noCounts();
const disk = countingDisk(nodeDisk, counts);
const figures: Record<string, number> = {};

async function timed<T>(name: string, run: () => Promise<T>): Promise<T> {
  const startMs = performance.now();
  const result = await run();
  figures[name] = Math.round((performance.now() - startMs) * 10) / 10;
  process.stderr.write(`${chunks} chunks: ${name} ${figures[name]} ms\n`);
  return result;
}

const open = (): Promise<Store> =>
  openStore({
    ...{ disk, clock: systemClock, root: folder, log: silentLog },
    catalog: new CatalogClient(join(folder, 'catalog.sqlite')),
    randomBytes: (count) => new Uint8Array(randomBytes(count)),
  });

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;

await nodeDisk.makeDirectory(folder);
let store = await open();
const volume = new ManyChunks(chunks);
let ingest = await store.beginIngest('many', [volume.description]);
/** Upkeep rests: what waits for its lane has its turn behind it. */
const rest = async () => {
  for (let i = 0; i < 3; i += 1) await store.applyRetention({ drop: [] });
};
if (process.argv[4] === '--build') {
  await volume.write(ingest, 0, chunks);
  await store.seal(await volume.commit(ingest, START_MS));
  await rest();
  await ingest.close();
  await store.close();
  process.exit();
}
volume.goOn(chunks, ingest.positions[0]!.committed!.epoch);
const sealMs: number[] = [];
const sealCalls: number[] = [];
const sealWritten: number[] = [];
const sealRead: number[] = [];
for (let i = 1; i <= POINTS; i += 1) {
  await store.statistics();
  const before = { ...counts };
  const startMs = performance.now();
  await volume.write(ingest, (i * 7919) % (chunks - CHANGED_CHUNKS), CHANGED_CHUNKS);
  await store.seal(await volume.commit(ingest, START_MS + i * 1000));
  sealMs.push(performance.now() - startMs);
  sealCalls.push(counts.calls - before.calls);
  sealWritten.push(counts.writtenBytes - before.writtenBytes);
  sealRead.push(counts.readBytes - before.readBytes);
}
figures.sealMs = Math.round(median(sealMs) * 10) / 10;
figures.sealCalls = median(sealCalls);
figures.sealWrittenBytes = median(sealWritten);
figures.sealReadBytes = median(sealRead);
await timed('upkeepMs', rest);
await timed('listMs', () => store.points({ limit: 100 }));
const [point] = await store.points({ limit: 1 });
await timed('imageMs', async () => {
  const image = await store.openImage(point!.id, '/dev/many');
  await image.read(Math.floor(image.sizeBytes / 2 / 65536) * 65536, 2 ** 20);
  image.close();
});
await timed('checkMs', () => store.check({ readData: false }));
await timed('collectMs', () => store.collect());
await ingest.close();
await store.close();
const before = { ...counts };
store = await timed('startMs', open);
figures.startCalls = counts.calls - before.calls;
figures.startSyncs = counts.syncs - before.syncs;
figures.startReadBytes = counts.readBytes - before.readBytes;
const { storedBytes } = await store.statistics();
figures.storedBytes = storedBytes;
ingest = await store.beginIngest('many', [volume.description]);
await ingest.close();
await store.close();
figures.peakBytes = process.resourceUsage().maxRSS * 1024;
await rm(folder, { recursive: true });
process.stdout.write(`${JSON.stringify({ chunks, ...figures })}\n`);
