/**
 * A repository in an object store with trouble at both ends: no room on the local disk for any call, and
 * any byte of the bucket turned. What was acknowledged stays; nothing wrong is handed out.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { Random } from '../simulation/random.ts';
import { BucketLife, bucketKinds } from './support/bucket-life.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { expectAcknowledged, outcomeOf, readsAs } from './support/store-life.ts';

const STRIDE = Number(process.env.STORE_CRASH_STRIDE ?? 37);

describe.each(bucketKinds)('trouble of a repository in a bucket, %s', (_, hasBundles, far) => {
  it('no room on the local disk, for any call, costs nothing that was acknowledged', async () => {
    const quiet = new BucketLife(new FaultyDisk(), 4, hasBundles, far);
    await quiet.run();
    for (let call = 24; call < quiet.disk.calls; call += STRIDE) {
      const life = new BucketLife(new FaultyDisk(), 4, hasBundles, far);
      life.disk.failAt(call, 'ERR_DISK_FULL');
      const error = await outcomeOf(life);
      const what = `call ${call}`;
      if (error !== undefined) {
        expect((error as UnderstudyError).code, what).toMatch(/ERR_STORE_FAILED|ERR_DISK_FULL/);
      }
      life.disk.restart(new Random(call));
      await life.open();
      await expectAcknowledged(life, what);
      await life.store!.close();
    }
  });

  it('a byte that is turned, in any object, is told and never handed out', async () => {
    const life = new BucketLife(new FaultyDisk(), 4, hasBundles, far);
    await life.run();
    const random = new Random(8);
    let told = 0;
    for (const [name, { bytes }] of life.objects.held) {
      if (name === 'format.json') continue;
      const at = random.below(bytes.length);
      const before = bytes[at]!;
      bytes[at] = before ^ (1 << random.below(8));
      const offline = await life.offline(() => undefined);
      const { findings } = await offline.check({ readData: true });
      if (findings.length > 0) told += 1;
      const hurt = new Set(findings.flatMap(({ points }) => points));
      const ids = new Set((await offline.points({})).map(({ id }) => id));
      for (const point of life.acknowledged) {
        if (!ids.has(point.id)) continue;
        try {
          expect(await readsAs(offline, point), `${name} at ${at}`).toBe(true);
        } catch (error) {
          expect(error, `${name} at ${at}`).toBeInstanceOf(UnderstudyError);
          expect(hurt, `${name} at ${at}`).toContain(point.id);
        }
      }
      await offline.close();
      bytes[at] = before;
    }
    expect(told).toBeGreaterThan(10);
  });
});
