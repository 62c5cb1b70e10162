/**
 * What a base stands for goes only while all that the base needs is held: it has contents of its own. They
 * are missing where a pack was lost, or where the base is the late write of a process that had lost the
 * repository, whose packs were collected meanwhile.
 */
import { expect, it } from 'vitest';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readableOf, StoreLife, tinySettings } from './support/store-life.ts';

const settings = { ...tinySettings, segmentBytes: 150_000, baseAfterDeltas: 4, levelFan: 1000 };

/** Six sealed points with a base among them, the store closed. */
async function sealedLife(): Promise<StoreLife> {
  const life = new StoreLife(new FaultyDisk(), 5);
  life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
  await life.open(settings);
  const ingest = await life.connect();
  for (let i = 0; i < 6; i += 1) {
    const { id } = await life.writeAndCommit(ingest);
    await life.store!.seal(id);
  }
  await life.store!.close();
  life.disk.reopen();
  return life;
}

it('retention takes nothing that a point needs, whatever pack was lost', async () => {
  let packs = 1;
  let whole = 0;
  for (let n = 0; n < packs; n += 1) {
    const life = await sealedLife();
    const names = life.disk.files('/data/repo/packs');
    packs = names.length;
    life.disk.lose(names[n]!);
    for (const path of life.disk.files('/data/repo/index')) life.disk.lose(path);
    await life.open({ ...settings, baseAfterDeltas: 1000 });
    const newest = life.acknowledged.at(-1)!.id;
    const isWhole = (await readableOf(life, life.store!)).includes(newest);
    await life.store!.applyRetention({ drop: life.acknowledged.map(({ id }) => id) });
    if (isWhole) expect(await readableOf(life, life.store!), names[n]).toEqual([newest]);
    if (isWhole) whole += 1;
    await life.store!.close();
  }
  expect(whole).toBeGreaterThan(0);
});
