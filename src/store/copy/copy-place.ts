/**
 * What an operator has named as the destination of a copy: a directory or `s3://bucket/prefix`. Says no to
 * a place that is the source, lies in it, or has it inside. It is opened for each copy, and closed after
 * it: a bucket that cannot be reached is the trouble of one copy. Whether what is there may be written to
 * is copy-target.ts's to say.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import { toHex } from '../format/checksum.ts';
import { isS3Place, parseS3Place } from '../objects/s3-settings.ts';
import { openServicePlace, type PlaceOptions, type PlaceWorld } from '../place.ts';
import type { CopyDestination, CopyPlace } from '../types.ts';
import { directoryPlace } from './copy-target.ts';

/**
 * `sources`: all places of what is copied (data directory, repository). `scratch`: a local folder that a
 * bucket needs; without it, one of the system's that goes again. ERR_COPY_PLACE, ERR_USAGE.
 */
export async function copyDestination(
  given: string,
  sources: readonly string[],
  options: PlaceOptions,
  world: PlaceWorld,
  scratch?: string,
): Promise<CopyDestination> {
  const holder = { holder: toHex(new Uint8Array(randomBytes(16))), host: hostname() };
  const name = await nameOf(given);
  for (const source of sources) await assertApart(given, name, source);
  const leaseBy = { leaseBy: holder };
  if (!isS3Place(given)) {
    const place = { ...directoryPlace(nodeDisk, name, name), ...leaseBy };
    return { name, open: async () => ({ ...place, close: async () => undefined }) };
  }
  const open = async () => ({ ...(await openBucket(name, options, world, scratch)), ...leaseBy });
  return { name, open };
}

/** Files without a name lie in the scratch folder until they are put. */
async function openBucket(
  name: string,
  options: PlaceOptions,
  world: PlaceWorld,
  given: string | undefined,
): Promise<CopyPlace & { close(): Promise<void> }> {
  const scratch = given ?? (await mkdtemp(join(tmpdir(), 'understudy-copy-')));
  const clean = async () => {
    if (given === undefined) await rm(scratch, { recursive: true, force: true });
  };
  try {
    const { disk, repo, alone, close } = await openServicePlace(scratch, name, options, world);
    return { ...{ name, disk, repo, scratch, alone }, close: () => close().finally(clean) };
  } catch (error) {
    await clean();
    throw error;
  }
}

async function nameOf(given: string): Promise<string> {
  if (!isS3Place(given)) return realFolder(resolve(given));
  const { bucket, prefix } = parseS3Place(given);
  return prefix === '' ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
}

async function assertApart(given: string, name: string, source: string): Promise<void> {
  if (isS3Place(source) !== isS3Place(given)) return;
  const from = await nameOf(source);
  const own = [from];
  // A repository may be given as `repo` of its data directory: that is the source too.
  const above = dirname(from);
  if (basename(from) === 'repo' && (await nodeDisk.exists(join(above, 'journal')))) own.push(above);
  if (!own.some((path) => name === path || isBelow(name, path) || isBelow(path, name))) return;
  const message = `${given}: the copy and its source (${source}) lie in each other`;
  throw new UnderstudyError('ERR_COPY_PLACE', message, { path: name });
}

const isBelow = (path: string, folder: string): boolean => path.startsWith(`${folder}/`);

/** Without links, as far as the path is there. */
async function realFolder(path: string): Promise<string> {
  if (await nodeDisk.exists(path)) return realpath(path);
  const above = dirname(path);
  return above === path ? path : join(await realFolder(above), basename(path));
}
