/** A life of the store whose repository lies in an object store, which outlives kills and power cuts. */
import type { Disk } from '../../../src/base/disk.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { StoreOptions } from '../../../src/store/create-core.ts';
import { BucketDisk } from '../../../src/store/objects/bucket-disk.ts';
import { type OfflineRepository, openRepositoryIn } from '../../../src/store/offline.ts';
import { MemoryObjects } from './memory-objects.ts';
import { StoreLife } from './store-life.ts';

export const BUCKET = 's3://bucket/prefix';

export class BucketLife extends StoreLife {
  readonly objects = new MemoryObjects();

  bucketDisk(local: Disk = this.disk.mount(), mirror = '/data/mirror'): BucketDisk {
    const { objects, clock } = this;
    return new BucketDisk({ local, root: BUCKET, objects, clock, mirror });
  }

  protected override mount(): Partial<StoreOptions> & Pick<StoreOptions, 'disk'> {
    const disk = this.bucketDisk();
    return { disk, repo: BUCKET, onAlone: () => disk.keepListing() };
  }

  /** From the bucket alone, with nothing of the local disk. */
  async offline(): Promise<OfflineRepository> {
    const disk = this.bucketDisk(this.disk.mount(), '/elsewhere');
    return openRepositoryIn({ disk, repo: BUCKET, objects: this.objects }, silentLog);
  }
}
