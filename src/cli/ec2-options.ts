/** Options of the `understudy ec2` commands. */
import { readFile } from 'node:fs/promises';
import { diskError } from '../base/node-disk.ts';
import { atOptions } from './operator.ts';
import type { OptionSpec } from './option.ts';

export const planOption: OptionSpec = {
  name: 'plan',
  type: 'text',
  value: 'FILE',
  describe: 'Launch plan: JSON, its fields are in install/aws/README.md',
  required: true,
};
export const recordOption: OptionSpec = {
  name: 'record',
  type: 'text',
  value: 'FILE',
  describe: 'Where the launch is written down: with it, it is gone on with and cleaned up',
  required: true,
};
export const chainOption: OptionSpec = {
  name: 'chain',
  type: 'text',
  value: 'FILE',
  describe: 'Record of the rolling chain that ec2 prestage keeps: only what differs is uploaded',
};
export const verifyOption: OptionSpec = {
  name: 'verify',
  type: 'text',
  choices: ['none', 'sample', 'all'],
  describe: 'Read the finished snapshots back and compare: nothing, one block in 50, or all',
  default: 'sample',
};
export const putsOption: OptionSpec = {
  name: 'puts-per-second',
  type: 'count',
  value: 'N',
  describe: "Blocks of 512 KiB a second: this launch's part of the account's quota",
  default: 1000,
};
export const parallelOption: OptionSpec = {
  name: 'parallel',
  type: 'count',
  value: 'N',
  describe: 'Blocks on their way at once for each volume; fewer for a slow line',
  default: 64,
};
export const idleOption: OptionSpec = {
  name: 'idle-timeout',
  type: 'duration',
  value: 'TIME',
  describe: 'AWS gives an unfinished snapshot up that got no block for so long (10m to 72h)',
  default: '24h',
};
export const pricesOption: OptionSpec = {
  name: 'prices',
  type: 'text',
  value: 'FILE',
  describe: 'Prices of your own for the estimate: JSON, install/aws/README.md',
};
export const pointOptions: readonly OptionSpec[] = [
  { name: 'point', type: 'text', value: 'ID', describe: 'Recovery point, or "latest"' },
  ...atOptions,
  {
    name: 'server',
    type: 'text',
    value: 'NAME',
    describe: 'Whose latest point, where several servers are kept',
  },
];

/** The text of a file that an option names. ERR_DISK_*. */
export async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw diskError(cause, path);
  });
}
