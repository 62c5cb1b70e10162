/** A life of the store whose repository lies in an object store, which outlives kills and power cuts. */
import type { Disk, FarReads } from '../../../src/base/disk.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { StoreOptions } from '../../../src/store/create-core.ts';
import type { KeyOptions } from '../../../src/store/keys/open-vault.ts';
import { BucketDisk } from '../../../src/store/objects/bucket-disk.ts';
import { BundledObjects } from '../../../src/store/objects/bundled-objects.ts';
import { type OfflineRepository, openRepositoryIn } from '../../../src/store/offline.ts';
import { isPassing } from '../../../src/store/passing.ts';
import type { FaultyDisk } from './faulty-disk.ts';
import { MemoryObjects } from './memory-objects.ts';
import { StoreLife, tinySettings } from './store-life.ts';

export const BUCKET = 's3://bucket/prefix';
export const FAR: FarReads = { requests: 16, bytes: 16 * 2 ** 20 };

/** Ways to keep a repository in an object store. */
export const bucketKinds = [
  ['object by object', false, undefined],
  ['with bundles', true, undefined],
  ['with bundles and many reads at a time', true, FAR],
] as const;

export class BucketLife extends StoreLife {
  readonly objects = new MemoryObjects();
  private readonly hasBundles: boolean;
  private readonly far: FarReads | undefined;

  /** `far`: many reads are under way at a time. */
  constructor(disk: FaultyDisk, seed: number, hasBundles: boolean, far?: FarReads) {
    super(disk, seed);
    this.hasBundles = hasBundles;
    this.far = far;
  }

  /** `told`: of bundles that are damaged; without it they must not be. */
  bucketDisk(
    local: Disk = this.disk.mount(),
    mirror = '/data/mirror',
    told?: (name: string) => void,
  ): BucketDisk {
    const { objects, clock } = this;
    const { far } = this;
    const common = { local, root: BUCKET, clock, mirror, ...(far !== undefined && { far }) };
    if (!this.hasBundles) return new BucketDisk({ ...common, objects });
    const failed = (name: string, error: Error) => {
      if (told !== undefined) told(name);
      else if (!isPassing(error)) throw new Error(`${name}: ${error.message}`);
    };
    const bundles = new BundledObjects(objects, { onDamage: failed, onLeft: failed });
    return new BucketDisk({ ...common, objects: bundles, bundles });
  }

  protected override mount(): Partial<StoreOptions> & Pick<StoreOptions, 'disk'> {
    const disk = this.bucketDisk();
    return { disk, repo: BUCKET, onAlone: () => disk.keepListing() };
  }

  /** From the bucket alone, with nothing of the local disk. */
  async offline(told?: (name: string) => void): Promise<OfflineRepository> {
    const disk = this.bucketDisk(this.disk.mount(), '/elsewhere', told);
    return openRepositoryIn({ disk, repo: BUCKET, objects: this.objects, ...this.keys }, silentLog);
  }

  /** A service that has sealed one point and is gone. */
  async sealOne(keys?: KeyOptions): Promise<void> {
    const disk = this.bucketDisk();
    const own = { ...(keys && { keys }), onAlone: () => disk.keepListing() };
    await this.open({ ...tinySettings, baseAfterDeltas: 1000 }, { ...own, disk });
    const ingest = await this.connect();
    const { id } = await this.writeAndCommit(ingest, 12);
    await this.store!.seal(id);
    await ingest.close();
    await this.store!.close();
    this.disk.reopen();
  }
}
