/**
 * From a raw image file to the formats of hypervisors, by qemu-img, and back again as a proof: the result
 * is compared with the raw file. A raw image is a guest's to write: its format is always told, never
 * probed, or a guest could have the host open a file of its choosing.
 */
import { spawn } from 'node:child_process';
import { UnderstudyError } from '../base/errors.ts';

export const imageFormats = ['raw', 'qcow2', 'vmdk', 'vhd'] as const;
export type ImageFormat = (typeof imageFormats)[number];

/** What qemu-img calls the format, and the options with which others accept it. */
const drivers: Record<Exclude<ImageFormat, 'raw'>, { driver: string; options: string[] }> = {
  qcow2: { driver: 'qcow2', options: [] },
  vmdk: { driver: 'vmdk', options: ['-o', 'subformat=streamOptimized'] },
  vhd: { driver: 'vpc', options: ['-o', 'subformat=fixed,force_size=on'] },
};

export interface ConvertOptions {
  readonly rawPath: string;
  readonly out: string;
  readonly format: Exclude<ImageFormat, 'raw'>;
  readonly stop: AbortSignal;
}

/** Converts and compares. Throws ERR_CLI_MISSING_PROGRAM, ERR_EXPORT_CONVERT, ERR_EXPORT_MISMATCH. */
export async function convertImage(options: ConvertOptions): Promise<void> {
  const { rawPath, out, format, stop } = options;
  const { driver, options: driverOptions } = drivers[format];
  await run(
    ['convert', '-f', 'raw', '-O', driver, ...driverOptions, '--', rawPath, out],
    'ERR_EXPORT_CONVERT',
    stop,
  );
  await run(
    ['compare', '-f', 'raw', '-F', driver, '--', rawPath, out],
    'ERR_EXPORT_MISMATCH',
    stop,
  );
}

type ConvertError = 'ERR_EXPORT_CONVERT' | 'ERR_EXPORT_MISMATCH';

function run(words: string[], code: ConvertError, stop: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('qemu-img', words, { stdio: ['ignore', 'ignore', 'pipe'], signal: stop });
    let said = '';
    child.stderr.on('data', (data: Buffer) => {
      said = (said + data.toString()).slice(-2000);
    });
    child.on('error', (cause: NodeJS.ErrnoException) => {
      const isMissing = cause.code === 'ENOENT';
      reject(
        isMissing
          ? new UnderstudyError('ERR_CLI_MISSING_PROGRAM', 'qemu-img is not installed', {}, cause)
          : new UnderstudyError(code, `qemu-img ${words[0]} failed`, {}, cause),
      );
    });
    child.on('close', (exitCode, signal) => {
      if (exitCode === 0) resolve();
      else {
        const why = said.trim() || `exit ${exitCode ?? signal}`;
        reject(new UnderstudyError(code, `qemu-img ${words[0]}: ${why}`));
      }
    });
  });
}
