/** Copies and keys: a copy has its own master key and data keys, and the names of its source. */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { fileMaster } from '../../src/store/keys/master.ts';
import type { KeyOptions } from '../../src/store/keys/open-vault.ts';
import { openRepository } from '../../src/store/offline.ts';
import { COPY, CopyWorld, expectAt, placeOn } from './support/copy-world.ts';
import { FaultyDisk } from './support/faulty-disk.ts';

const masterOf = (byte: number): KeyOptions => ({
  master: fileMaster(new Uint8Array(32).fill(byte), `key ${byte}`),
});
const openWith = (disk: FaultyDisk, keys?: KeyOptions) => () =>
  openRepository(COPY, silentLog, disk.mount(), keys);

describe('a copy', () => {
  it('of a plain repository may be encrypted; nothing of it lies in clear', async () => {
    const world = new CopyWorld(81);
    await world.commit(4);
    const far = new FaultyDisk();
    const keys = masterOf(1);
    const place = { ...placeOn(far), keys };
    const { acknowledged, store } = world.life;
    expect(await store!.copy(place, { verify: 'new' })).toMatchObject({ points: 4 });
    await world.commit(1);
    const again = await store!.copy({ ...placeOn(far), keys }, {});
    expect(again).toMatchObject({ points: 1, held: 5 });
    expect(await expectAt(openWith(far, keys), acknowledged)).toHaveLength(5);
    await expect(openWith(far)()).rejects.toMatchObject({ code: 'ERR_KEY_REQUIRED' });
    await expect(openWith(far, masterOf(2))()).rejects.toMatchObject({ code: 'ERR_KEY_WRONG' });
    const wrong = store!.copy({ ...placeOn(far), keys: masterOf(2) }, {});
    await expect(wrong).rejects.toMatchObject({ code: 'ERR_KEY_WRONG' });
    await expect(store!.copy(placeOn(far), {})).rejects.toMatchObject({ code: 'ERR_KEY_REQUIRED' });
    for (const path of far.files(COPY)) {
      const bytes = Buffer.from(far.peek(path)).toString('latin1');
      for (const word of ['/dev/a', '"web"', acknowledged[0]!.id]) {
        expect(bytes.includes(word), `${word} in ${path}`).toBe(false);
      }
      expect(path).not.toContain('/web/');
    }
    await store!.close();
  });

  it('of an encrypted one needs a key, which may be another one, and shares its names', async () => {
    const world = new CopyWorld(82);
    await world.commit(3);
    const near = new FaultyDisk();
    const first = masterOf(3);
    await world.life.store!.copy({ ...placeOn(near), keys: first }, {});
    await world.life.store!.close();
    const source = await openWith(near, first)();
    const far = new FaultyDisk();
    const bare = { ...placeOn(far, 'bare'), keys: undefined } as never;
    await expect(source.copy(bare, {})).rejects.toMatchObject({ code: 'ERR_KEY_REQUIRED' });
    expect(far.files()).toEqual([]);
    const second = masterOf(4);
    const report = await source.copy(
      { ...placeOn(far, 'second'), keys: second },
      { verify: 'all' },
    );
    expect(report).toMatchObject({ points: 3, isNoted: true, verified: { findings: [] } });
    await source.close();
    const noted = await openWith(near, first)();
    expect((await noted.points({}))[0]!.copies).toMatchObject([{ place: 'second' }]);
    await noted.close();
    expect(await expectAt(openWith(far, second), world.life.acknowledged)).toHaveLength(3);
    await expect(openWith(far, first)()).rejects.toMatchObject({ code: 'ERR_KEY_WRONG' });
    // Names are the same at both: so are the paths of points and maps.
    const named = (disk: FaultyDisk) =>
      disk.files(COPY).filter((path) => /\.(point|base)$/.test(path));
    expect(named(far)).toEqual(named(near));
  });
});
