/**
 * Where a repository lies: what an operator has given (nothing, a directory, `s3://bucket/prefix`), as a disk
 * and a path on it. A repository in the data directory lies on the local disk as it is. One in another place
 * is reached object by object, also where that is a directory: it may be on another file system.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { BucketDisk } from './objects/bucket-disk.ts';
import { BundledObjects, type Confirm } from './objects/bundled-objects.ts';
import { DirectoryObjects } from './objects/directory-objects.ts';
import { type ObjectStore, sourceOf } from './objects/object-store.ts';
import {
  defaultS3,
  farReadsOf,
  isS3Place,
  parseS3Place,
  type S3Settings,
} from './objects/s3-settings.ts';

/** How a bucket is used; `defaultS3` has what is left out. */
export type PlaceOptions = Partial<Omit<S3Settings, 'bucket' | 'prefix'>>;

export interface PlaceWorld {
  readonly clock: Clock;
  readonly log: Log;
}

export interface Place {
  readonly disk: Disk;
  /** Path of the repository on that disk. */
  readonly repo: string;
  /** Null where it lies on the local disk as it is. */
  readonly objects: ObjectStore | null;
  /** A local folder, of readers of a bucket, for what has no name yet. */
  readonly scratch?: string;
  /**
   * To be called once this process is the only writer, before it changes anything; `confirm` asks for the
   * lease by which it is.
   */
  alone(term: number, confirm?: Confirm): Promise<void>;
  close(): Promise<void>;
}

const local = (repo: string): Place => ({
  ...{ disk: nodeDisk, repo, objects: null },
  alone: async () => undefined,
  close: async () => undefined,
});

const randomName = (): string => randomBytes(8).toString('hex');

/** Objects of a bucket or a directory. The SDK is loaded only where it is needed. ERR_USAGE. */
async function openObjects(
  given: string,
  options: PlaceOptions,
  { clock }: Pick<PlaceWorld, 'clock'>,
): Promise<ObjectStore> {
  if (!isS3Place(given)) return new DirectoryObjects(nodeDisk, resolve(given), randomName);
  const { S3Objects } = await import('./objects/s3-objects.ts');
  const settings = { ...defaultS3, ...options, ...parseS3Place(given) };
  return new S3Objects(settings, { clock, random: Math.random });
}

/**
 * For the service with this data directory. `given` undefined: in the data directory.
 * ERR_OBJECTS_UNSUITABLE where the object store cannot do what a repository needs; what it refuses.
 */
export async function openServicePlace(
  data: string,
  given: string | undefined,
  options: PlaceOptions,
  world: PlaceWorld,
): Promise<Place> {
  const own = join(resolve(data), 'repo');
  if (given === undefined || (!isS3Place(given) && resolve(given) === own)) return local(own);
  const objects = await openObjects(given, options, world);
  try {
    await assertCreateOnce(objects);
  } catch (error) {
    await objects.close();
    throw error;
  }
  const mirror = join(resolve(data), 'mirror');
  const disk = diskOver(objects, { given, mirror, options }, world);
  return {
    ...{ disk, repo: objects.place, objects },
    async alone(term, confirm) {
      await disk.keepListing(term, confirm);
      await clean(objects, world.log);
    },
    close: () => objects.close(),
  };
}

/** In a bucket, where each request costs, small objects share bundles; in a directory each is a file. */
function diskOver(
  objects: ObjectStore,
  of: { readonly given: string; readonly mirror: string; readonly options: PlaceOptions },
  { clock, log }: PlaceWorld,
): BucketDisk {
  const { given, mirror, options } = of;
  const common = { local: nodeDisk, root: objects.place, mirror, clock };
  if (!isS3Place(given)) return new BucketDisk({ ...common, objects });
  const at = (name: string) => `${objects.place}/${name}`;
  const bundles = new BundledObjects(objects, {
    onDamage: (name, error) =>
      log.error('a bundle cannot be read', { path: at(name), error: error.message }),
    onLeft: (name, error) =>
      log.warn('a bundle that is replaced stays', { path: at(name), error: error.message }),
  });
  const far = farReadsOf(options.connections ?? defaultS3.connections);
  return new BucketDisk({ ...common, objects: bundles, bundles, far });
}

/** For readers without a service: nothing is changed. */
export async function openReaderPlace(
  given: string,
  options: PlaceOptions,
  world: PlaceWorld,
): Promise<Place> {
  if (!isS3Place(given)) return local(resolve(given));
  const objects = await openObjects(given, options, world);
  const mirror = join(tmpdir(), `understudy-${randomName()}`);
  const disk = diskOver(objects, { given, mirror, options }, world);
  return {
    ...{ disk, repo: objects.place, objects, scratch: `${mirror}-scratch` },
    alone: async () => undefined,
    async close() {
      for (const folder of [mirror, `${mirror}-scratch`]) {
        await rm(folder, { recursive: true, force: true });
      }
      await objects.close();
    },
  };
}

/** What interrupted uploads have left costs money and nothing else: that it stays is no reason to stop. */
async function clean(objects: ObjectStore, log: Log): Promise<void> {
  try {
    const removed = await objects.clean();
    if (removed > 0) log.info('removed what interrupted uploads have left', { uploads: removed });
  } catch (error) {
    log.warn('interrupted uploads could not be looked for', { error: String(error) });
  }
}

/**
 * Everything rests on a name being given once. Services that do not know If-None-Match ignore it: so it is
 * tried, under a name that nobody else uses.
 */
export async function assertCreateOnce(objects: ObjectStore): Promise<void> {
  const name = `probe/${randomName()}`;
  const [first, second] = [Uint8Array.of(1), Uint8Array.of(2)];
  await objects.put(name, sourceOf(first));
  try {
    if ((await objects.put(name, sourceOf(second))) === 'exists') return;
  } finally {
    await objects.remove(name);
  }
  const message = `${objects.place}: a name was given twice (If-None-Match is not known)`;
  throw new UnderstudyError('ERR_OBJECTS_UNSUITABLE', message, { path: objects.place });
}
