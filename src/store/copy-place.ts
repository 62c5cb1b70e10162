/**
 * What an operator has named as the destination of a copy, as a disk and a path on it. Says no to a
 * directory that is the source, lies in it, or has it inside. Whether what is there may be written to is
 * copy-target.ts's to say.
 */
import { randomBytes } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { toHex } from './checksum.ts';
import { directoryPlace } from './copy-target.ts';
import type { CopyPlace } from './types.ts';

/**
 * `given`: a directory, there or not. `source`: the data directory or repository that is copied.
 * ERR_COPY_PLACE.
 */
export async function openCopyPlace(given: string, source: string): Promise<CopyPlace> {
  const folder = await realFolder(resolve(given));
  const from = await realFolder(resolve(source));
  // A repository may be given as `repo` of its data directory: that is the source too.
  const whole = basename(from) === 'repo' ? dirname(from) : from;
  for (const own of new Set([from, whole])) {
    if (folder !== own && !isBelow(folder, own) && !isBelow(own, folder)) continue;
    if (own !== from && !(await nodeDisk.exists(join(own, 'journal')))) continue;
    const message = `${given}: the copy and its source (${source}) lie in each other`;
    throw new UnderstudyError('ERR_COPY_PLACE', message, { path: folder });
  }
  const holder = toHex(new Uint8Array(randomBytes(16)));
  return {
    ...directoryPlace(nodeDisk, folder, folder),
    leaseBy: { holder, host: hostname() },
  };
}

const isBelow = (path: string, folder: string): boolean => path.startsWith(`${folder}/`);

/** Without links, as far as the path is there. */
async function realFolder(path: string): Promise<string> {
  if (await nodeDisk.exists(path)) return realpath(path);
  const above = dirname(path);
  return above === path ? path : join(await realFolder(above), basename(path));
}
