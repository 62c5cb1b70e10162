// Cuts under ordered writers of rising rates: up to which rate they end valid, in how many passes
// and milliseconds. Two volumes, 32 chains, a fifth of the writes to 16 blocks, a cut every 180 ms;
// without the oracle, which would take the processor from the writer (the system tests run it).
// usage: bench-cut.ts FOLDER RATE... (0: all that the writer can)
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PassResult } from '../../src/native/types.ts';
import { createLoopDevice } from './loop-device.ts';
import { type LoadOptions, Writer } from './ordered-load.ts';
import { Replica } from './replica.ts';

const VOLUME_BYTES = 128 << 20;
const CUTS = 30;
const INTERVAL_MS = 180;
const DEADLINE_MS = 2000;

function percentile(values: number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

async function cutRepeatedly(replica: Replica): Promise<PassResult[]> {
  const results: PassResult[] = [];
  let next = performance.now();
  for (let index = 0; index < CUTS; index++) {
    results.push((await replica.cut(DEADLINE_MS)).result);
    next = Math.max(next + INTERVAL_MS, performance.now());
    await sleep(Math.max(1, next - performance.now()));
  }
  return results;
}

function row(folder: string, perSecond: number, results: PassResult[]): string {
  const valid = results.filter((result) => result.outcome === 'valid');
  const spent = valid.map((result) => result.durationMs);
  const passes = valid.map((result) => result.passes);
  const first = valid.map((result) => result.firstBlocks);
  const where = folder === '/dev/shm' ? 'memory' : 'disk';
  const figures = [
    `${percentile(spent, 0.5).toFixed(1)} ms, worst ${percentile(spent, 1).toFixed(1)}`,
    `${percentile(passes, 0.5)} passes, most ${percentile(passes, 1)}`,
    `${valid.length} of ${results.length} valid`,
  ];
  const how = `2 loop devices in ${where}, ${percentile(first, 0.5)} blocks in the first pass`;
  return `| validated cut at ${Math.round(perSecond)} writes/s | ${figures.join('; ')} | ${how} |`;
}

async function measure(folder: string, rate: number): Promise<string> {
  const loops = [1, 2].map(() => createLoopDevice(VOLUME_BYTES, folder));
  const log = `/dev/shm/understudy-bench-${process.pid}`;
  const paths = loops.map((loop) => loop.path);
  const load: LoadOptions = { paths, blocks: VOLUME_BYTES / 4096, seed: 1, rate, log };
  try {
    const replica = await Replica.open({
      paths,
      instance: `bench-${process.pid}`,
      keepsImages: false,
    });
    const writer = await Writer.start(load);
    await sleep(500);
    const results = await cutRepeatedly(replica);
    const end = await writer.stop();
    await replica.closeAndDetach();
    return row(folder, end.writes / end.seconds, results);
  } finally {
    for (const loop of loops) loop.remove();
    rmSync(log, { force: true });
  }
}

const [folder = '/dev/shm', ...rates] = process.argv.slice(2);
for (const rate of rates) console.log(await measure(folder, Number(rate)));
