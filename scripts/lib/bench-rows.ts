/** Rows of the table of scripts/bench from two lines of JSON: the same measured small and large. */
import { readFileSync } from 'node:fs';
import { formatSize } from '../../src/base/units.ts';

type Figures = Record<string, number>;
const [small, large] = readFileSync(process.argv[2]!, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Figures) as [Figures, Figures];

const ms = (value: number): string => `${value >= 100 ? Math.round(value) : value} ms`;
const count = (value: number): string => String(value);
const rows: [string, string, (value: number) => string][] = [
  ['sealing a point of 16 changed chunks', 'sealMs', ms],
  ['.. calls of the disk', 'sealCalls', count],
  ['.. bytes written', 'sealWrittenBytes', formatSize],
  ['.. bytes read', 'sealReadBytes', formatSize],
  ['listing points', 'listMs', ms],
  ['opening an image, reading 1 MiB of it', 'imageMs', ms],
  ['check of the structure', 'checkMs', ms],
  ['collection', 'collectMs', ms],
  ['start', 'startMs', ms],
  ['.. calls of the disk', 'startCalls', count],
  ['.. syncs', 'startSyncs', count],
  ['.. bytes read', 'startReadBytes', formatSize],
  ['repository', 'storedBytes', formatSize],
  ['peak memory of the process', 'peakBytes', formatSize],
];
const growth = large.chunks! / small.chunks!;
for (const [what, name, show] of rows) {
  const [a, b] = [small[name]!, large[name]!];
  const ratio = a > 0 ? (b / a).toFixed(1) : '-';
  const sizes = `${small.chunks} and ${large.chunks} chunks (x ${growth})`;
  console.log(`| ${what} | ${show(a)}, ${show(b)}: x ${ratio} | ${sizes} |`);
}
