/**
 * The writer and checker of `records.ts` as a program:
 *   record-tool.ts write FOLDER LOG SEED RECORDS_PER_SECOND   until SIGTERM; a line on stdout when begun
 *   record-tool.ts check FOLDER LOG SEED TIME                 TIME: the ISO time of the recovery point
 */
import { boundsAt, checkRecords, RecordWriter, readBatches } from './records.ts';

const BATCH_RECORDS = 16;

async function write(folder: string, log: string, seed: string, perSecond: number): Promise<void> {
  const writer = new RecordWriter(folder, log, seed);
  let isStopped = false;
  process.on('SIGTERM', () => {
    isStopped = true;
  });
  const startMs = performance.now();
  let written = 0;
  while (!isStopped) {
    writer.writeBatch(BATCH_RECORDS);
    if (written === 0) process.stdout.write('begun\n');
    written += BATCH_RECORDS;
    const dueMs = (written / perSecond) * 1000;
    const waitMs = Math.max(0, dueMs - (performance.now() - startMs));
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  writer.close();
}

function check(folder: string, log: string, seed: string, time: string): number {
  const bounds = boundsAt(readBatches(log), Date.parse(time));
  const { checked, required, faults } = checkRecords(folder, seed, bounds);
  for (const fault of faults.slice(0, 10)) process.stdout.write(`  ${fault}\n`);
  const verdict = faults.length === 0 ? 'all right to the byte' : `${faults.length} WRONG`;
  process.stdout.write(
    `${checked} records compared (${required} were durable before the cut): ${verdict}\n`,
  );
  return faults.length === 0 ? 0 : 1;
}

const [command, folder, log, seed, value] = process.argv.slice(2);
if (!folder || !log || !seed || !value || (command !== 'write' && command !== 'check')) {
  process.stderr.write('usage: record-tool.ts write|check FOLDER LOG SEED RATE|TIME\n');
  process.exit(2);
}
if (command === 'write') await write(folder, log, seed, Number(value));
else process.exit(check(folder, log, seed, value));
