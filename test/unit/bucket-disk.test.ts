/** The disk whose repository lies in an object store: what it asks for, when, and what it makes of failures. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { publish } from '../../src/store/format/object-file.ts';
import { BucketDisk } from '../../src/store/objects/bucket-disk.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { MemoryObjects } from './support/memory-objects.ts';

const ROOT = 's3://bucket/prefix';
const KIB = 1024;
const code = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );
const pattern = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255);

let local: FaultyDisk;
let objects: MemoryObjects;
let clock: VirtualClock;
let disk: BucketDisk;

const open = (): BucketDisk =>
  new BucketDisk({ local: local.mount(), root: ROOT, objects, clock, mirror: '/mirror' });

beforeEach(async () => {
  local = new FaultyDisk();
  objects = new MemoryObjects();
  clock = new VirtualClock();
  disk = open();
  await disk.makeDirectory('/t');
});

async function file(path: string, bytes: Uint8Array): Promise<string> {
  const made = await local.open(path, 'create');
  await made.write([bytes], 0);
  await made.close();
  return path;
}
const put = async (name: string, bytes: Uint8Array): Promise<void> => {
  await objects.put(name, sourceOf(bytes));
};
const names = async (of: Disk, path: string): Promise<string[]> =>
  (await of.list(path)).map(({ name, isDirectory }) => (isDirectory ? `${name}/` : name));

describe('a bucket as a disk', () => {
  it('puts what is renamed or linked into it, and leaves the rest on the local disk', async () => {
    await disk.keepListing();
    await disk.rename(await file('/t/1', pattern(10)), `${ROOT}/points/web/a.point`);
    await disk.link(await file('/t/2', pattern(20)), `${ROOT}/packs/3f/b.pack`);
    await disk.rename(await file('/t/3', pattern(5)), '/t/4');
    expect([...objects.held.keys()].sort()).toEqual(['packs/3f/b.pack', 'points/web/a.point']);
    expect(local.files('/t')).toEqual(['/t/2', '/t/4']);
    expect([...(await disk.readFile(`${ROOT}/points/web/a.point`))]).toEqual([...pattern(10)]);
    expect(await names(disk, ROOT)).toEqual(['packs/', 'points/']);
    expect(await names(disk, `${ROOT}/packs/3f`)).toEqual(['b.pack']);
    expect(await disk.exists(`${ROOT}/packs/3f`)).toBe(true);
    expect(await disk.exists(`${ROOT}/packs/40`)).toBe(false);
    await disk.makeDirectory(`${ROOT}/packs/40`);
    expect(await disk.exists(`${ROOT}/packs/40`)).toBe(true);
    await disk.syncDirectory(`${ROOT}/packs/40`);
    await disk.remove(`${ROOT}/packs/3f/b.pack`);
    expect(await code(disk.remove(`${ROOT}/packs/3f/b.pack`))).toBe('ERR_DISK_NOT_FOUND');
    expect(await code(disk.open(`${ROOT}/packs/3f/b.pack`, 'read'))).toBe('ERR_DISK_NOT_FOUND');
    expect(await disk.exists(`${ROOT}/packs/3f/b.pack`)).toBe(false);
  });

  it('never gives a name to other bytes, and takes the same ones', async () => {
    await disk.keepListing();
    const to = `${ROOT}/packs/3f/a.pack`;
    await disk.rename(await file('/t/1', pattern(10)), to);
    await disk.rename(await file('/t/1', pattern(10)), to);
    expect(await code(disk.rename(await file('/t/1', pattern(11)), to))).toBe(
      'ERR_OBJECTS_CONFLICT',
    );
    expect(await code(disk.link('/t/1', to))).toBe('ERR_DISK_EXISTS');
    expect(local.files('/t')).toEqual(['/t/1']);
    expect((await disk.readFile(to)).length).toBe(10);
    expect(await code(disk.open(to, 'write'))).toBe('ERR_BUG');
    const opened = await disk.open(to, 'read');
    expect(await code(opened.write([pattern(1)], 0))).toBe('ERR_DISK_PERMISSION');
  });

  it('leaves what somebody else has put under the name of an object that is published', async () => {
    await disk.keepListing();
    await put('points/web/a.point', pattern(20)); // by a service that this one does not know of
    const temporary = await file('/t/1', pattern(10));
    const to = `${ROOT}/points/web/a.point`;
    expect(await code(publish(disk, temporary, to))).toBe('ERR_OBJECTS_CONFLICT');
    expect([...objects.held.keys()]).toEqual(['points/web/a.point']);
  });

  it.each([true, false])(
    'lists a folder whose path ends with a slash (alone: %s)',
    async (isAlone) => {
      await put('deltas/web/v/g/1.delta', pattern(10));
      if (isAlone) await disk.keepListing();
      expect(await names(disk, `${ROOT}/deltas/web/v/`)).toEqual(['g/']);
    },
  );

  it('asks again for what was asked for while its put was under way', async () => {
    await disk.keepListing();
    const { promise: waiting, resolve: release } = Promise.withResolvers<void>();
    const slow = objects.put.bind(objects);
    objects.put = async (name, source) => {
      await waiting;
      await slow(name, source);
      throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', 'the answer is lost');
    };
    const renamed = code(disk.rename(await file('/t/1', pattern(10)), `${ROOT}/holds/a.hold`));
    await new Promise((go) => setImmediate(go));
    expect(await names(disk, `${ROOT}/holds`)).toEqual([]);
    release();
    expect(await renamed).toBe('ERR_OBJECTS_UNAVAILABLE');
    expect(await names(disk, `${ROOT}/holds`)).toEqual(['a.hold']);
  });

  it('reads a header and what follows it with one request, and on with ever larger ones', async () => {
    const bytes = pattern(3000 * KIB);
    await put('packs/3f/a.pack', bytes);
    await disk.keepListing();
    const opened = await disk.open(`${ROOT}/packs/3f/a.pack`, 'read');
    expect(await opened.size()).toBe(bytes.length);
    const buffer = new Uint8Array(100);
    for (const offset of [0, 16, 5000, 60_000]) {
      expect(await opened.read(buffer, offset)).toBe(100);
      expect(Buffer.compare(buffer, bytes.subarray(offset, offset + 100))).toBe(0);
    }
    expect(objects.count('read')).toBe(1);
    // From the first to the last byte, in steps that fit nothing.
    for (let at = 0; at < bytes.length; at += 50_001) {
      const part = new Uint8Array(Math.min(50_001, bytes.length - at));
      expect(await opened.read(part, at)).toBe(part.length);
      expect(Buffer.compare(part, bytes.subarray(at, at + part.length))).toBe(0);
    }
    expect(objects.count('read')).toBeLessThanOrEqual(8);
    expect(await opened.read(buffer, bytes.length)).toBe(0);
    expect(await opened.read(buffer, bytes.length - 40)).toBe(40);
    const before = objects.count('read');
    const large = new Uint8Array(2000 * KIB);
    expect(await opened.read(large, 1)).toBe(large.length);
    expect(Buffer.compare(large, bytes.subarray(1, 1 + large.length))).toBe(0);
    expect(objects.count('read')).toBe(before + 1);
    expect(objects.count('bytes') + objects.count('list')).toBe(1);
  });

  it('goes on where some of it is passed over, and takes the rest of a small object at once', async () => {
    await put('packs/3f/large.pack', pattern(8000 * KIB));
    await put('packs/3f/small.pack', pattern(1000 * KIB));
    await disk.keepListing();
    const buffer = new Uint8Array(60 * KIB);
    const large = await disk.open(`${ROOT}/packs/3f/large.pack`, 'read');
    for (let at = 0; at < 7900 * KIB; at += 180 * KIB) await large.read(buffer, at);
    expect(objects.count('read')).toBeLessThanOrEqual(12);
    const before = objects.count('read');
    const small = await disk.open(`${ROOT}/packs/3f/small.pack`, 'read');
    for (const at of [3, 200, 700, 400, 900, 250, 600]) await small.read(buffer, at * KIB);
    expect(objects.count('read') - before).toBe(2);
  });

  it('asks once for a block that several want at once, and again where that failed', async () => {
    await put('packs/3f/a.pack', pattern(100 * KIB));
    await disk.keepListing();
    const opened = await disk.open(`${ROOT}/packs/3f/a.pack`, 'read');
    const read = () => opened.read(new Uint8Array(50), 10);
    expect(await Promise.all([read(), read(), read()])).toEqual([50, 50, 50]);
    expect(objects.count('read')).toBe(1);
    const other = await disk.open(`${ROOT}/packs/3f/a.pack`, 'read');
    const further = () => other.read(new Uint8Array(50), 70 * KIB);
    let fails = 1;
    objects.before = () => {
      if (fails-- > 0) throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', 'away');
    };
    const results = await Promise.allSettled([further(), further()]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  it('lists once where it is alone, and leases anew each time', async () => {
    await put('packs/3f/a.pack', pattern(10));
    await disk.keepListing();
    const others = [1, 2, 3].map((n) => `packs/3f/${n}.pack`);
    for (const name of others) await put(name, pattern(1));
    expect(await names(disk, `${ROOT}/packs/3f`)).toEqual(['a.pack']);
    expect(objects.count('list')).toBe(1);
    await put('lease/1.lease', pattern(1));
    expect(await names(disk, `${ROOT}/lease`)).toEqual(['1.lease']);
    await put('lease/2.lease', pattern(1));
    expect(await names(disk, `${ROOT}/lease`)).toEqual(['1.lease', '2.lease']);
    await disk.remove(`${ROOT}/lease/1.lease`);
    expect(objects.held.has('lease/1.lease')).toBe(false);
    await put('keys/1.key', pattern(1)); // made beside the service
    expect(await names(disk, `${ROOT}/keys`)).toEqual(['1.key']);
  });

  it('lists anew for a reader, whole trees with one request', async () => {
    for (const name of ['a/1/x', 'a/1/y', 'a/2/x', 'b']) await put(name, pattern(3));
    expect(await names(disk, `${ROOT}/a`)).toEqual(['1/', '2/']);
    expect(await names(disk, `${ROOT}/a/1`)).toEqual(['x', 'y']);
    expect(await names(disk, `${ROOT}/a/2`)).toEqual(['x']);
    expect(objects.count('list')).toBe(1);
    await put('a/2/z', pattern(3));
    expect(await names(disk, `${ROOT}/a/2`)).toEqual(['x', 'z']);
    await disk.list(`${ROOT}/a`);
    await put('a/1/z', pattern(3));
    await clock.runUntil(clock.monotonicMs() + 10_000);
    expect(await names(disk, `${ROOT}/a/1`)).toEqual(['x', 'y', 'z']);
    expect(await names(disk, `${ROOT}/none`)).toEqual([]);
  });

  it.each([true, false])(
    'knows what became of a put whose answer was lost (%s)',
    async (isDone) => {
      await disk.keepListing();
      const to = `${ROOT}/deltas/web/a.delta`;
      const lost = (kind: string) => {
        if (kind === 'put') throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', 'lost');
      };
      if (isDone) objects.after = lost;
      else objects.before = lost;
      const from = await file('/t/1', pattern(10));
      expect(await code(disk.rename(from, to))).toBe('ERR_OBJECTS_UNAVAILABLE');
      expect(local.files('/t')).toEqual(['/t/1']);
      objects.after = () => undefined;
      objects.before = () => undefined;
      objects.cutOff = 'ERR_OBJECTS_UNAVAILABLE';
      expect(await code(disk.exists(to))).toBe('ERR_OBJECTS_UNAVAILABLE');
      expect(await code(disk.list(`${ROOT}/deltas/web`))).toBe('ERR_OBJECTS_UNAVAILABLE');
      expect(await disk.exists(`${ROOT}/packs`)).toBe(false);
      objects.cutOff = null;
      expect(await disk.exists(to)).toBe(isDone);
      expect(await names(disk, `${ROOT}/deltas/web`)).toEqual(isDone ? ['a.delta'] : []);
      expect(objects.count('list')).toBe(1);
    },
  );

  it('says that an object is locked, and keeps it', async () => {
    await put('packs/3f/a.pack', pattern(10));
    await disk.keepListing();
    objects.locked.add('packs/3f/a.pack');
    expect(await code(disk.remove(`${ROOT}/packs/3f/a.pack`))).toBe('ERR_OBJECTS_LOCKED');
    expect(await disk.exists(`${ROOT}/packs/3f/a.pack`)).toBe(true);
  });

  it('reads index objects from a copy on the local disk', async () => {
    await disk.keepListing();
    const path = `${ROOT}/index/1.index`;
    await disk.rename(await file('/t/1', pattern(500 * KIB)), path);
    const read = async (from: Disk) => {
      const opened = await from.open(path, 'read');
      const buffer = new Uint8Array(100);
      for (const at of [0, 300_000, 90_000, 510_000]) {
        const count = await opened.read(buffer, at);
        const wanted = pattern(500 * KIB).subarray(at, at + 100);
        expect(Buffer.compare(buffer.subarray(0, count), wanted)).toBe(0);
      }
      await opened.close();
    };
    await read(disk);
    expect(objects.count('read')).toBe(0);
    // Another life: the copy is still there; where it is lost or too short it is fetched.
    const again = open();
    await again.keepListing();
    await read(again);
    expect(objects.count('read')).toBe(0);
    local.poke('/mirror/1.index', pattern(7));
    await read(again);
    expect(objects.count('read')).toBe(1);
    await again.remove(path);
    expect(local.files('/mirror')).toEqual([]);
    await file('/mirror/9.index', pattern(1));
    await open().keepListing();
    expect(local.files('/mirror')).toEqual([]);
  });
});
