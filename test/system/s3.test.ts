/**
 * Buckets of a real server (test/tools/s3-server.ts tells which, and how to name another): the contract of
 * object stores, versions, Object Lock, classes; and every request of a put failing in every way that a
 * network or a service has.
 */
import { GetObjectCommand, HeadObjectCommand, ListObjectVersionsCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { S3Objects } from '../../src/store/objects/s3-objects.ts';
import { defaultS3, type S3Settings } from '../../src/store/objects/s3-settings.ts';
import { FailingProxy, type Failure } from '../tools/failing-proxy.ts';
import { type S3Server, startS3 } from '../tools/s3-server.ts';
import { objectsSuite } from '../unit/support/objects-suite.ts';

const MIB = 2 ** 20;
const LARGE = 11 * MIB + 12_345;
const retry = { tries: 5, firstMs: 2, capMs: 20 };
/** For requests that are not answered; all others are waited for, however busy the machine is. */
const impatient = { timeoutMs: 4000, slowestBytesPerSecond: Number.POSITIVE_INFINITY };
const world = { clock: systemClock, random: Math.random };

let server: S3Server;
let proxy: FailingProxy;
beforeAll(async () => {
  server = await startS3();
  proxy = await FailingProxy.start(server.endpoint);
});
afterAll(async () => {
  await proxy?.stop();
  await server?.stop();
});

/** Parts as small as S3 allows, so that a test's object has some. */
const settingsOf = (bucket: string, over: Partial<S3Settings> = {}): S3Settings => ({
  ...defaultS3,
  ...{ bucket, prefix: 'a/prefix', endpoint: server.endpoint, retry },
  ...{ partBytes: 5 * MIB, multipartBytes: 6 * MIB },
  ...over,
});
const open = (bucket: string, over: Partial<S3Settings> = {}): S3Objects =>
  new S3Objects(settingsOf(bucket, over), world);

const pattern = (length: number, seed: number): Uint8Array => {
  const bytes = Buffer.alloc(length, seed);
  for (let at = 0; at + 4 <= length; at += 4096) bytes.writeUInt32LE(at + seed, at);
  return bytes;
};
const code = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

objectsSuite(
  'a bucket',
  async () => {
    const bucket = await server.makeBucket();
    return { objects: open(bucket), other: open(bucket) };
  },
  LARGE,
);
objectsSuite(
  'a bucket with versions, without a prefix',
  async () => {
    const bucket = await server.makeBucket('versioned');
    return { objects: open(bucket, { prefix: '' }), other: open(bucket, { prefix: '' }) };
  },
  LARGE,
);

async function versionsOf(bucket: string): Promise<number> {
  const found = await server.client.send(new ListObjectVersionsCommand({ Bucket: bucket }));
  return (found.Versions?.length ?? 0) + (found.DeleteMarkers?.length ?? 0);
}

describe('a bucket with versions', () => {
  it('has nothing left of what was removed, and keeps names that only begin alike', async () => {
    const bucket = await server.makeBucket('versioned');
    const objects = open(bucket);
    await objects.put('x/1', sourceOf(pattern(10, 1)));
    await objects.put('x/12', sourceOf(pattern(10, 2)));
    expect(await objects.remove('x/1')).toBe('removed');
    expect(await versionsOf(bucket)).toBe(1);
    expect(await objects.bytes('x/12')).toBe(10);
  });
});

describe('Object Lock', () => {
  it('keeps what it is told to, changes nothing, and lets go what upkeep replaces', async () => {
    const bucket = await server.makeBucket('locked');
    const objects = open(bucket, { lock: { forMs: 86_400_000, mode: 'GOVERNANCE' } });
    // moto forgets the lock of an object that comes in parts.
    for (const [name, bytes] of [
      ['packs/3f/1.pack', 100],
      ['packs/3f/2.pack', server.isMoto ? 200 : LARGE],
    ] as const) {
      expect(await objects.put(name, sourceOf(pattern(bytes, 3)))).toBe('stored');
      expect(await objects.remove(name)).toBe('locked');
      expect(await objects.bytes(name)).toBe(bytes);
      expect(await objects.reclass(name, 'GLACIER_IR')).toBe('unchanged');
    }
    expect(await objects.put('index/1.index', sourceOf(pattern(9, 3)))).toBe('stored');
    expect(await objects.remove('index/1.index')).toBe('removed');
    expect(await versionsOf(bucket)).toBe(2);
  });

  it('that was set for a moment lets go afterwards', async () => {
    const bucket = await server.makeBucket('locked');
    let wallMs = Date.now();
    const clock = { ...systemClock, wallMs: () => wallMs };
    const lock = { forMs: 6000, mode: 'GOVERNANCE' } as const;
    const objects = new S3Objects(settingsOf(bucket, { lock }), { clock, random: Math.random });
    await objects.put('points/web/1.point', sourceOf(pattern(10, 1)));
    expect(await objects.remove('points/web/1.point')).toBe('locked');
    const removed = () => {
      wallMs = Date.now();
      return objects.remove('points/web/1.point');
    };
    await expect.poll(removed, { interval: 500 }).toBe('removed');
    expect(await versionsOf(bucket)).toBe(0);
  });
});

describe('storage classes', () => {
  it('are given by kind, listed, and changed in place', async () => {
    const bucket = await server.makeBucket('versioned');
    const classes = new Map([['packs', 'STANDARD_IA']]);
    const objects = open(bucket, { classes });
    await objects.put('packs/1', sourceOf(pattern(10, 1)));
    await objects.put('packs/2', sourceOf(pattern(LARGE, 1)));
    await objects.put('points/1', sourceOf(pattern(10, 1)));
    const listed = async () => {
      const found: string[] = [];
      for await (const { name, storageClass } of objects.list('')) {
        found.push(`${name} ${storageClass}`);
      }
      return found;
    };
    if (!server.isMoto) return; // Servers without classes keep all in one.
    const before = ['packs/1 STANDARD_IA', 'packs/2 STANDARD_IA', 'points/1 STANDARD'];
    expect(await listed()).toEqual(before);
    expect(await objects.reclass('packs/2', 'GLACIER_IR')).toBe('moved');
    expect(await objects.reclass('packs/3', 'GLACIER_IR')).toBe('unchanged');
    expect((await listed())[1]).toBe('packs/2 GLACIER_IR');
    const there = await objects.read('packs/2', 0, LARGE);
    expect(Buffer.compare(there, pattern(LARGE, 1))).toBe(0);
    expect(await versionsOf(bucket)).toBe(3);
    // Still known as its own bytes.
    expect(await objects.put('packs/2', sourceOf(pattern(LARGE, 1)))).toBe('stored');
  });
});

describe('what is put', () => {
  it('goes with its SHA-256, which is kept beside it', async () => {
    const bucket = await server.makeBucket();
    await open(bucket).put('x', sourceOf(pattern(77, 9)));
    const Key = 'a/prefix/x';
    const head = await server.client.send(new HeadObjectCommand({ Bucket: bucket, Key }));
    expect(head.Metadata?.sha256).toMatch(/^[0-9a-f]{64}$/);
    const got = await server.client.send(new GetObjectCommand({ Bucket: bucket, Key }));
    expect((await got.Body!.transformToByteArray()).length).toBe(77);
  });

  it('is compared with what is there where another program has put it', async () => {
    const bucket = await server.makeBucket();
    const { PutObjectCommand } = await import('@aws-sdk/client-s3');
    const Key = 'a/prefix/x';
    const Body = pattern(77, 9);
    await server.client.send(new PutObjectCommand({ Bucket: bucket, Key, Body }));
    expect(await open(bucket).put('x', sourceOf(pattern(77, 9)))).toBe('stored');
    expect(await open(bucket).put('x', sourceOf(pattern(77, 8)))).toBe('exists');
  });
});

describe('refusals', () => {
  it('name the bucket and say by their codes what is wrong', async () => {
    const gone = open('test-no-such-bucket');
    expect(await code(gone.put('x', sourceOf(pattern(5, 1))))).toBe('ERR_OBJECTS_NO_BUCKET');
    expect(await code(gone.read('x', 0, 5))).toBe('ERR_OBJECTS_NO_BUCKET');
    expect(await code(gone.bytes('x'))).toBe('ERR_OBJECTS_NO_BUCKET');
    expect(await code(gone.list('').next())).toBe('ERR_OBJECTS_NO_BUCKET');
    await expect(gone.read('x', 0, 5)).rejects.toThrow('s3://test-no-such-bucket/a/prefix/x');
    const nobody = open('test-x', { endpoint: 'http://127.0.0.1:9' });
    expect(await code(nobody.bytes('x'))).toBe('ERR_OBJECTS_UNAVAILABLE');
  });
});

/** What each failure of one request must come to. */
const passing: readonly Failure[] = [
  'reset',
  'answer-lost',
  'cut-short',
  'no-answer',
  '500',
  '503',
];
const final: ReadonlyMap<Failure, string> = new Map([
  ['403', 'ERR_OBJECTS_DENIED'],
  ['no-bucket', 'ERR_OBJECTS_NO_BUCKET'],
]);

describe.each([
  ['whole', 100_000],
  ['in parts', LARGE],
])('a put %s', (_title, length) => {
  const setup = async (over: Partial<S3Settings> = {}) => {
    const bucket = await server.makeBucket();
    const through = open(bucket, { endpoint: proxy.endpoint, ...over });
    return { bucket, through, direct: open(bucket) };
  };
  const requests = async (): Promise<number> => {
    const { through } = await setup();
    proxy.reset();
    await through.put('packs/x', sourceOf(pattern(length, 1)));
    return proxy.count;
  };

  it('comes to the right end whichever request fails in a way that may pass', async () => {
    const count = await requests();
    expect(count).toBeGreaterThanOrEqual(length > MIB ? 5 : 1);
    // Of an upload in parts every other request, where not all are asked for: the ways take turns.
    const step = process.env.TEST_FULL === '1' || count < 5 ? 1 : 2;
    for (const [i, failure] of passing.entries()) {
      for (let n = 1 + (i % step); n <= count; n += step) {
        const { through, direct } = await setup(failure === 'no-answer' ? impatient : {});
        proxy.reset((at) => (at === n ? failure : null));
        const what = `${failure} at ${n}: ${proxy.seen[n - 1]}`;
        expect(await through.put('packs/x', sourceOf(pattern(length, 1))), what).toBe('stored');
        const there = await direct.read('packs/x', 0, length + 1);
        expect(Buffer.compare(there, pattern(length, 1)), what).toBe(0);
        if (failure === 'no-answer') continue; // as if it were lost, and slower
        // A put of other bytes still finds the name taken, also with its answer lost.
        proxy.reset((at) => (at === n ? failure : null));
        const other = await through.put('packs/x', sourceOf(pattern(length, 2)));
        expect(other, what).toBe('exists');
        // An upload whose beginning was not heard of, or whose end the service forgot, is found.
        await direct.clean();
        expect(await direct.clean(), what).toBe(0);
      }
    }
  }, 300_000);

  it('fails clearly, and leaves nothing, where a request is refused', async () => {
    const count = await requests();
    for (const [failure, expected] of final) {
      for (let n = 1; n <= count; n += 1) {
        const { through, direct } = await setup();
        proxy.reset((at) => (at === n ? failure : null));
        expect(await code(through.put('packs/x', sourceOf(pattern(length, 1))))).toBe(expected);
        expect(await direct.bytes('packs/x')).toBeNull();
        expect(await direct.clean()).toBe(0);
      }
    }
  }, 300_000);

  it('gives up in time where the service stays away, and can be done again', async () => {
    const { through, direct } = await setup();
    for (const failure of ['reset', '503', '500'] as const) {
      proxy.reset(() => failure);
      const put = through.put('packs/x', sourceOf(pattern(length, 1)));
      expect(await code(put)).toBe('ERR_OBJECTS_UNAVAILABLE');
      expect(await direct.bytes('packs/x')).toBeNull();
    }
    proxy.reset();
    expect(await through.put('packs/x', sourceOf(pattern(length, 1)))).toBe('stored');
  }, 300_000);
});

describe('a read, a listing, a removal', () => {
  it('come to the right end whichever way a request fails that may pass', async () => {
    const bucket = await server.makeBucket();
    const direct = open(bucket);
    const through = open(bucket, { endpoint: proxy.endpoint, ...impatient });
    for (const failure of passing) {
      await direct.put('x', sourceOf(pattern(50_000, 1)));
      const once = () => proxy.reset((at) => (at === 1 ? failure : null));
      once();
      const read = await through.read('x', 100, 40_000);
      expect(Buffer.compare(read, pattern(50_000, 1).subarray(100, 40_100)), failure).toBe(0);
      once();
      expect(await through.bytes('x'), failure).toBe(50_000);
      once();
      const { value } = await through.list('').next();
      expect(value?.name, failure).toBe('x');
      once();
      expect(await through.remove('x'), failure).toBe('removed');
      expect(await direct.bytes('x'), failure).toBeNull();
    }
  }, 120_000);
});

describe('the rate', () => {
  it('is kept, up and down together', async () => {
    const bucket = await server.makeBucket();
    const slow = open(bucket, { bytesPerSecond: 4 * MIB, retry });
    const began = performance.now();
    for (let i = 0; i < 4; i += 1) await slow.put(`x${i}`, sourceOf(pattern(MIB, i)));
    for (let i = 0; i < 4; i += 1) await slow.read(`x${i}`, 0, MIB);
    // 8 MiB at 4 MiB/s, less what was saved up and what nobody waits for at the end.
    expect(performance.now() - began).toBeGreaterThan(1500);
  });
});
