/** Copies of encrypted repositories, and encrypted copies of plain ones: whole, under a key of their own. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { directoryPlace } from '../../src/store/copy/copy-target.ts';
import { fileMaster } from '../../src/store/keys/master.ts';
import type { KeyOptions } from '../../src/store/keys/open-vault.ts';
import { openRepository } from '../../src/store/offline.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { NonceWatch, testMaster } from './support/key-mode.ts';
import { readableOf, StoreLife, tinySettings } from './support/store-life.ts';

const own: KeyOptions = { master: testMaster, aead: new NonceWatch() };
const other: KeyOptions = { master: fileMaster(new Uint8Array(32).fill(99), 'another key') };

async function copied(keys: KeyOptions | undefined, theirs: KeyOptions | undefined) {
  const life = new StoreLife(new FaultyDisk(), 5);
  const far = new FaultyDisk();
  await far.makeDirectory('/copy');
  await life.open(tinySettings, keys === undefined ? {} : { keys });
  const ingest = await life.connect();
  const commit = async (count: number) => {
    for (let i = 0; i < count; i += 1) await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
  };
  const place = { ...directoryPlace(far, '/copy', '/copy'), ...(theirs && { keys: theirs }) };
  await commit(3);
  const first = await life.store!.copy(place, { verify: 'new' });
  await commit(2);
  const second = await life.store!.copy(place, { verify: 'all' });
  await life.store!.close();
  return { life, far, points: [first.points, second.points] };
}

async function expectWhole(far: FaultyDisk, life: StoreLife, keys: KeyOptions): Promise<void> {
  const copy = await openRepository('/copy', silentLog, far.mount(), keys);
  expect(await readableOf(life, copy as never)).toHaveLength(5);
  expect((await copy.check({ readData: true })).findings).toEqual([]);
  await copy.close();
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

describe('a copy', () => {
  it('of an encrypted repository has its names and a key of its own', async () => {
    const { life, far, points } = await copied(own, other);
    expect(points).toEqual([3, 2]);
    await expectWhole(far, life, other);
    expect(await codeOf(openRepository('/copy', silentLog, far.mount(), own))).toBe(
      'ERR_KEY_WRONG',
    );
    const folders = (files: string[]) => new Set(files.map((path) => path.split('/').at(-2)));
    expect(folders(far.files('/copy/points'))).toEqual(
      folders(life.disk.files('/data/repo/points')),
    );
  });

  it('of a plain repository can be encrypted, under the names of the source', async () => {
    const { life, far, points } = await copied(undefined, other);
    expect(points).toEqual([3, 2]);
    await expectWhole(far, life, other);
    const format = JSON.parse(Buffer.from(far.peek('/copy/format.json')).toString());
    expect(format.encryption).toEqual({ cipher: 'aes-256-gcm', names: 'sha-256' });
    for (const path of far.files('/copy')) {
      const bytes = Buffer.from(far.peek(path));
      expect(bytes.includes('/dev/a'), path).toBe(false);
      expect(path).not.toMatch(/\/web\//);
    }
  });

  it('of an encrypted repository is not made without a key', async () => {
    expect(await codeOf(copied(own, undefined))).toBe('ERR_KEY_REQUIRED');
  });
});
