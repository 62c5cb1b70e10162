/**
 * From a raw image file to the formats of hypervisors, by qemu-img, and back again as a proof: the result
 * is compared with the raw file, and a vhd's own footer is read. Whoever takes a format also sets its
 * size: a vhd is a whole number of MiB and has at most 2040 GiB (Azure), gcp (`gcp.ts`) a whole number of
 * GiB. A raw image is a guest's to write: its format is always told, never probed, or a guest could have
 * the host open a file of its choosing.
 */
import { spawn } from 'node:child_process';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { formatSize, GIB, MIB } from '../base/units.ts';

export const imageFormats = ['raw', 'qcow2', 'vmdk', 'vhd', 'gcp'] as const;
export type ImageFormat = (typeof imageFormats)[number];
/** Those that qemu-img makes of a raw file. */
export type ConvertedFormat = Exclude<ImageFormat, 'raw' | 'gcp'>;

/** What qemu-img calls the format, and the options with which others accept it. */
const drivers: Record<ConvertedFormat, { driver: string; options: string[] }> = {
  qcow2: { driver: 'qcow2', options: [] },
  vmdk: { driver: 'vmdk', options: ['-o', 'subformat=streamOptimized'] },
  vhd: { driver: 'vpc', options: ['-o', 'subformat=fixed,force_size=on'] },
};

export interface ConvertOptions {
  readonly rawPath: string;
  /** Of the raw file. */
  readonly sizeBytes: number;
  readonly out: string;
  readonly format: ConvertedFormat;
  readonly disk: Disk;
  readonly stop: AbortSignal;
}

/** The last sector count that the format allows where its geometry does not bound it (0xff000000). */
const MAX_VHD_BYTES = 2040 * GIB;

/** Throws ERR_EXPORT_REFUSED for a volume that nobody would take in this format. */
export function checkFormat(format: ImageFormat, sizeBytes: number): void {
  if (format !== 'vhd' || sizeBytes <= MAX_VHD_BYTES) return;
  const message = `a vhd holds at most ${formatSize(MAX_VHD_BYTES)}; the volume has ${formatSize(sizeBytes)}`;
  throw new UnderstudyError('ERR_EXPORT_REFUSED', message);
}

const diskSizeOf = (format: ConvertedFormat, sizeBytes: number): number =>
  format === 'vhd' ? Math.ceil(sizeBytes / MIB) * MIB : sizeBytes;

/**
 * Converts and compares; a raw file whose size the format does not allow is made longer. Returns the size
 * of the disk. Throws ERR_CLI_MISSING_PROGRAM, ERR_EXPORT_CONVERT, ERR_EXPORT_MISMATCH.
 */
export async function convertImage(options: ConvertOptions): Promise<number> {
  const { rawPath, sizeBytes, out, format, disk, stop } = options;
  const diskBytes = diskSizeOf(format, sizeBytes);
  if (diskBytes > sizeBytes) await lengthen(disk, rawPath, diskBytes);
  const { driver, options: driverOptions } = drivers[format];
  // qemu-img keeps the mode of a file that is there: a disk of a server is for its owner's eyes only.
  await (await disk.open(out, 'write')).close();
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
  if (format === 'vhd') await checkVhd(disk, out, diskBytes);
  await syncFile(disk, out);
  return diskBytes;
}

async function lengthen(disk: Disk, path: string, toBytes: number): Promise<void> {
  const file = await disk.open(path, 'write');
  try {
    await file.truncate(toBytes);
  } finally {
    await file.close();
  }
}

async function syncFile(disk: Disk, path: string): Promise<void> {
  const file = await disk.open(path, 'write');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

const VHD_FOOTER_BYTES = 512;

/** The footer, big-endian: cookie at 0, size at 48, type at 60 (2: fixed). Nothing but the disk before it. */
async function checkVhd(disk: Disk, path: string, diskBytes: number): Promise<void> {
  const file = await disk.open(path, 'read');
  try {
    const footer = Buffer.alloc(VHD_FOOTER_BYTES);
    const isWhole = (await file.size()) === diskBytes + VHD_FOOTER_BYTES;
    await file.read(footer, diskBytes);
    const isFixed =
      footer.toString('latin1', 0, 8) === 'conectix' &&
      footer.readUInt32BE(60) === 2 &&
      footer.readBigUInt64BE(48) === BigInt(diskBytes);
    if (isWhole && isFixed) return;
  } finally {
    await file.close();
  }
  const message = `${path} is not a fixed vhd of ${diskBytes} bytes`;
  throw new UnderstudyError('ERR_EXPORT_MISMATCH', message, { path });
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
