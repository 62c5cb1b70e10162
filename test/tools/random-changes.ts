// Random changes of block devices, by a program of test/tools, awaited without blocking the event
// loop.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { buildTool } from './build-tool.ts';

const start = promisify(execFile);
const call = async (...args: string[]) => {
  await start(buildTool('random-writer'), args);
};

/** Letters: d O_DIRECT, b buffered, m mmap and msync, t discard, z, p, r zeroes in three ways. */
export function mixChanges(
  paths: string[],
  options: { seed: number; operations: number; kinds?: string },
): Promise<void> {
  const { seed, operations, kinds = 'dbmtzpr' } = options;
  const count = ['--seed', String(seed), '--operations', String(operations)];
  return call('mix', ...count, '--kinds', kinds, ...paths);
}

/** Every block of the device once, 64 at a time. */
export const sweepBlocks = (path: string, seed: number): Promise<void> =>
  call('sweep', '--seed', String(seed), path);

export const changeOnce = (
  kind: string,
  path: string,
  offset: number,
  length: number,
): Promise<void> => call('once', kind, String(offset), String(length), path);
