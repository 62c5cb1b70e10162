/**
 * The second copies on which nothing depends until they are all there is: the two files of each key of an encrypted
 * repository, leases and terms. A check tells what is gone or was changed, a repair makes it again.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { openKeys } from '../../src/store/keys/key-place.ts';
import { fileMaster, type MasterKey, passphraseMaster } from '../../src/store/keys/master.ts';
import type { BucketDisk } from '../../src/store/objects/bucket-disk.ts';
import { openRepositoryIn } from '../../src/store/offline.ts';
import { repairRepository } from '../../src/store/repair/repair.ts';
import { Random } from '../simulation/random.ts';
import { BUCKET, BucketLife } from './support/bucket-life.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { NonceWatch, testMaster } from './support/key-mode.ts';
import { readableOf, tinySettings } from './support/store-life.ts';

let life: BucketLife;
let keys: { master: MasterKey; aead: NonceWatch };
const held = () => life.objects.held;
const filesOf = (pattern: RegExp) => [...held().keys()].filter((name) => pattern.test(name)).sort();
const keyFiles = () => filesOf(/^keys\//);
const idOf = (name: string) => name.slice('keys/'.length, 'keys/'.length + 16);
const textOf = (name: string) => Buffer.from(held().get(name)!.bytes).toString();
const purposeOf = (name: string) => (JSON.parse(textOf(name)) as { purpose: string }).purpose;
const firstOf = (purpose: string) => keyFiles().find((name) => purposeOf(name) === purpose)!;

beforeEach(async () => {
  life = new BucketLife(new FaultyDisk(), 5, true);
  keys = { master: testMaster, aead: new NonceWatch() };
  await life.sealOne(keys);
});

const place = (disk: BucketDisk, master = keys.master) => ({
  ...{ disk, repo: BUCKET, objects: life.objects, scratch: '/scratch' },
  keys: { ...keys, master },
});

async function findings(master = keys.master): Promise<string[]> {
  const disk = life.bucketDisk(new FaultyDisk().mount(), '/elsewhere');
  const offline = await openRepositoryIn(place(disk, master), silentLog);
  const { findings: found } = await offline.check({ readData: false });
  expect(await readableOf(life, offline as never)).toHaveLength(1);
  await offline.close();
  expect(found.flatMap(({ points }) => points)).toEqual([]);
  return found.map(
    ({ kind, object, detail }) => `${kind} ${object.slice(BUCKET.length + 1)} ${detail}`,
  );
}

async function repair(isDryRun = false, master = keys.master) {
  const disk = life.bucketDisk(new FaultyDisk().mount(), '/elsewhere');
  const alone = (term: number, confirm: never) => disk.keepListing(term, confirm);
  const options = { directory: BUCKET, isDryRun, log: silentLog, keys: { ...keys, master } };
  return repairRepository({ ...options, place: { ...place(disk, master), alone: alone as never } });
}

const addMaster = async (master: MasterKey) => {
  const random = new Random(77);
  const disk = life.bucketDisk(new FaultyDisk().mount(), '/elsewhere');
  const at = { disk, repo: BUCKET, objects: life.objects };
  await (await (await openKeys(at, testMaster, (count) => random.bytes(count), 1)).open()).add(
    master,
  );
};

const put = (name: string, text: string) =>
  held().set(name, { ...held().get(name)!, bytes: Buffer.from(text) });

/** Changes a digit of a field. */
function change(name: string, field: string): void {
  const text = textOf(name).replace(
    new RegExp(`("${field}": "?[0-9a-f]*)([0-9a-f])`),
    (_, head, digit) => `${head}${digit === '1' ? '2' : '1'}`,
  );
  expect(text).not.toBe(textOf(name));
  put(name, text);
}

describe.each(['root', 'names', 'data'])('the two files of a %s key', (purpose) => {
  it('are missed when one is gone, and there are two again after a repair', async () => {
    expect(await findings()).toEqual([]);
    const lost = firstOf(purpose);
    held().delete(lost);
    const object = `keys/${idOf(lost)}-*.key`;
    const told = expect.stringMatching(
      `^missing-object ${object.replace('*', '\\*')} .*${purpose} key .* repo repair`,
    );
    expect(await findings()).toEqual([told]);
    const { steps: planned } = await repair(true);
    expect(planned).toMatchObject([{ isPossible: true, action: 'made again from the other file' }]);
    expect(keyFiles()).toHaveLength(5);
    const { steps, after } = await repair();
    expect(steps).toEqual(planned);
    expect(after).toEqual([]);
    expect(keyFiles()).toHaveLength(6);
    expect(await findings()).toEqual([]);
    // What was made is as good as what was there.
    for (const other of keyFiles()
      .filter((name) => idOf(name) === idOf(lost))
      .slice(0, 1)) {
      held().delete(other);
      expect(await findings()).toHaveLength(1);
    }
  });

  it.each(['number', 'createdMs', 'salt', 'sealed', 'id', 'key'])(
    'are looked at whole: %s of one of them was changed',
    async (field) => {
      const name = firstOf(purpose);
      change(name, field);
      expect(await findings()).toEqual([expect.stringContaining(`damaged-object ${name} `)]);
      const { after, steps } = await repair();
      expect(after).toEqual([]);
      expect(steps.map(({ action }) => action)).toEqual([
        'made again from the other file',
        'it goes: two others have the key',
      ]);
      expect(held().has(name)).toBe(false);
      expect(keyFiles()).toHaveLength(6);
    },
  );
});

describe('a key file of another master', () => {
  const phrase = passphraseMaster('correct horse', 'a passphrase', { n: 16, r: 1, p: 1 });
  // As another process with the same passphrase: it would choose another salt.
  const again = passphraseMaster('correct horse', 'a passphrase', { n: 16, r: 1, p: 1 });
  const other = fileMaster(new Uint8Array(32).fill(9), 'another key file');

  it.each([
    ['a passphrase', phrase, again],
    ['a key file', other, other],
  ])('(%s) is missed by everyone, and made again by whoever has that', async (_, master, later) => {
    const before = keyFiles();
    await addMaster(master);
    const [added] = keyFiles().filter((name) => !before.includes(name));
    held().delete(added!);
    const [told] = await findings();
    expect(told).toContain('missing-object');
    expect(await findings(later)).toEqual([told]);
    const report = await repair();
    expect(report.steps).toMatchObject([
      { isPossible: false, action: expect.stringMatching(/^repair with the /) },
    ]);
    expect(report.after).toHaveLength(1);
    expect((await repair(false, later)).after).toEqual([]);
    expect(keyFiles()).toHaveLength(8);
    expect(await findings()).toEqual([]);
    expect(await findings(later)).toEqual([]);
  });

  it('is not taken away damaged while that is the one that is lacking', async () => {
    const before = keyFiles();
    await addMaster(other);
    const [added] = keyFiles().filter((name) => !before.includes(name));
    put(added!, '{');
    const { steps, after } = await repair();
    expect(steps.filter(({ isPossible }) => isPossible)).toEqual([]);
    expect(after).toHaveLength(1);
    expect(held().has(added!)).toBe(true);
    expect((await repair(false, other)).after).toEqual([]);
    expect(held().has(added!)).toBe(false);
    expect(await findings()).toEqual([]);
  });
});

describe('a lease, or a term', () => {
  it('that is damaged is told by a check, and a repair makes it well', async () => {
    await repair(); // takes a lease
    const disk = life.bucketDisk();
    const onAlone = () => disk.keepListing();
    const leaseBy = { holder: 'ab'.repeat(16), host: 'here' };
    await life.open(tinySettings, { keys, disk, onAlone, leaseBy });
    await life.store!.close();
    life.disk.reopen();
    expect(await findings()).toEqual([]);
    const broken = [filesOf(/^lease/).at(0)!, filesOf(/^terms/).at(-1)!];
    for (const name of broken) held().get(name)!.bytes[20]! ^= 1;
    expect(await findings()).toEqual(
      broken.map((name) => expect.stringContaining(`damaged-object ${name} `)),
    );
    const { after, before } = await repair();
    expect(before).toHaveLength(2);
    expect(after).toEqual([]);
    expect(await findings()).toEqual([]);
  });
});
