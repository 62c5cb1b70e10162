/** A file of the repository that is not there: gone for good, or the whole repository out of reach for a while. */
import { expect, it } from 'vitest';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { StoreLife, tinySettings } from './support/store-life.ts';

it('an image tells a pack that is gone from a repository that is out of reach', async () => {
  const disk = new FaultyDisk();
  const life = new StoreLife(disk, 5);
  const [volume] = life.volumes;
  volume!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
  await life.open(tinySettings);
  const { id } = await life.writeAndCommit(await life.connect());
  await life.store!.seal(id);
  await life.store!.close();
  disk.reopen();
  await life.open(tinySettings);
  const failing = async () => {
    const image = await life.store!.openImage(id, volume!.volume);
    try {
      return await image.read(0, image.sizeBytes).catch((error: unknown) => error);
    } finally {
      image.close();
    }
  };
  for (const path of disk.files('/data/repo/packs')) await disk.mount().remove(path);
  expect(await failing()).toMatchObject({
    code: 'ERR_PIECE_MISSING',
    message: expect.stringContaining(`is gone (point ${id}, volume ${volume!.volume})`),
    context: { point: id, volume: volume!.volume },
  });
  // As where its disk is not mounted.
  await disk.mount().remove('/data/repo/format.json');
  expect(await failing()).toMatchObject({ code: 'ERR_DISK_NOT_FOUND' });
  await life.store!.close();
});
