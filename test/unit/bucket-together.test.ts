/**
 * Steps that are done together on a disk in a bucket, as others see them: what is listed can be read, also
 * while the step goes on removing what it has made good.
 */
import { expect, it } from 'vitest';
import { BucketDisk } from '../../src/store/objects/bucket-disk.ts';
import { BundledObjects } from '../../src/store/objects/bundled-objects.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { MemoryObjects } from './support/memory-objects.ts';

const ROOT = 's3://bucket/prefix';

it('lists nothing that cannot be read while what it stands for is removed', async () => {
  const objects = new MemoryObjects();
  const local = new FaultyDisk();
  const told = { onDamage: () => undefined, onLeft: () => undefined };
  const bundles = new BundledObjects(objects, told);
  const disk = new BucketDisk({
    ...{ local: local.mount(), root: ROOT, objects: bundles, bundles },
    ...{ clock: new VirtualClock(), mirror: '/mirror' },
  });
  await local.mount().makeDirectory('/t');
  await disk.keepListing();
  let made = 0;
  const put = async (name: string) => {
    made += 1;
    const temporary = `/t/${made}`;
    const file = await local.open(temporary, 'create');
    await file.write([Uint8Array.of(1, 2, 3)], 0);
    await file.close();
    await disk.rename(temporary, `${ROOT}/${name}`);
  };
  await disk.together!(async () => {
    await put('deltas/v/1.delta');
    await put('deltas/v/2.delta');
  });
  await objects.put('bases/v/1.base', sourceOf(Uint8Array.of(9)));
  await disk.keepListing();
  const { promise: waiting, resolve: release } = Promise.withResolvers<void>();
  const remove = objects.remove.bind(objects);
  objects.remove = async (name) => {
    await waiting;
    return remove(name);
  };
  const folded = disk.together!(async () => {
    await put('deltas/v/fold.delta');
    await disk.remove(`${ROOT}/deltas/v/1.delta`);
    await disk.remove(`${ROOT}/bases/v/1.base`);
  });
  for (let turn = 0; turn < 20; turn += 1) {
    await new Promise((go) => setImmediate(go));
    for (const { name } of await disk.list(`${ROOT}/deltas/v`)) {
      expect(await disk.readFile(`${ROOT}/deltas/v/${name}`)).toHaveLength(3);
    }
  }
  release();
  await folded;
  expect([...objects.held.keys()]).not.toContain('bases/v/1.base');
  expect((await disk.list(`${ROOT}/deltas/v`)).map(({ name }) => name)).toEqual([
    '2.delta',
    'fold.delta',
  ]);
});
