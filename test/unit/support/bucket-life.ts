/** A life of the store whose repository lies in an object store, which outlives kills and power cuts. */
import type { Disk } from '../../../src/base/disk.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { StoreOptions } from '../../../src/store/create-core.ts';
import { BucketDisk } from '../../../src/store/objects/bucket-disk.ts';
import { BundledObjects } from '../../../src/store/objects/bundled-objects.ts';
import { type OfflineRepository, openRepositoryIn } from '../../../src/store/offline.ts';
import { isPassing } from '../../../src/store/passing.ts';
import type { FaultyDisk } from './faulty-disk.ts';
import { MemoryObjects } from './memory-objects.ts';
import { StoreLife } from './store-life.ts';

export const BUCKET = 's3://bucket/prefix';

export class BucketLife extends StoreLife {
  readonly objects = new MemoryObjects();
  private readonly hasBundles: boolean;

  constructor(disk: FaultyDisk, seed: number, hasBundles: boolean) {
    super(disk, seed);
    this.hasBundles = hasBundles;
  }

  /** `told`: of bundles that are damaged; without it they must not be. */
  bucketDisk(
    local: Disk = this.disk.mount(),
    mirror = '/data/mirror',
    told?: (name: string) => void,
  ): BucketDisk {
    const { objects, clock } = this;
    const common = { local, root: BUCKET, clock, mirror };
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
}
