/** Volumes as EBS snapshots, against the strict double: equal to the byte, whatever happens on the way. */
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { sleep, systemClock } from '../../src/base/clock.ts';
import { sizeGiB } from '../../src/recovery/ec2/block-image.ts';
import { PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import { checkSnapshot } from '../../src/recovery/ec2/snapshot-check.ts';
import { type UploadOptions, uploadSnapshot } from '../../src/recovery/ec2/upload.ts';
import type { UploadRecord, UploadRequest } from '../../src/recovery/ec2/upload-record.ts';
import type { Fault } from '../tools/aws-double.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import {
  differences,
  expectKilled,
  hurriedClock,
  imageOf,
  killAt,
  memoryRecord,
  useAwsWorld,
  useKey,
} from './support/aws-world.ts';

const world = useAwsWorld();

/** Twelve blocks and a bit: data, a hole, a block that is zero but for its last byte, an odd end. */
function sample(): Buffer {
  const content = Buffer.alloc(12 * BLOCK_BYTES + 4096 * 3 + 512);
  randomBytes(3 * BLOCK_BYTES + 777).copy(content, 0);
  content[8 * BLOCK_BYTES - 1] = 7;
  randomBytes(BLOCK_BYTES).copy(content, 9 * BLOCK_BYTES);
  randomBytes(300).copy(content, content.length - 300);
  return content;
}

const request: UploadRequest = {
  key: 'job-1 /dev/vda',
  sizeGiB: 1,
  description: 'understudy test',
  tags: [{ Key: 'understudy-job', Value: 'job-1' }],
  parentSnapshotId: null,
  encryption: null,
  timeoutMinutes: 60,
};

const upload = (content: Buffer, over: Partial<UploadOptions> = {}) =>
  uploadSnapshot(world.aws, {
    image: imageOf(content),
    request,
    changed: null,
    journal: memoryRecord<UploadRecord>(),
    lane: new PutQuota(hurriedClock, { putsPerSecond: 1e6 }).lane(),
    stop: new AbortController().signal,
    concurrency: 4,
    ...over,
  });

const check = (content: Buffer, snapshotId: string, share = 1) =>
  checkSnapshot(world.aws, {
    ...{ image: imageOf(content), snapshotId, share },
    stop: new AbortController().signal,
  });

/** The volume that AWS would make of the snapshot: the image, and zeros behind it. */
function expectVolume(snapshotId: string, content: Buffer): void {
  const volume = world.double.ebs.volume(snapshotId, content.length);
  expect(volume.subarray(0, content.length).equals(content)).toBe(true);
  expect(volume.subarray(content.length).every((byte) => byte === 0)).toBe(true);
}

/** The image some minutes later: a block changed, one zeroed, one that was a hole written. */
function later(content: Buffer): Buffer {
  const next = Buffer.from(content);
  randomBytes(100).copy(next, BLOCK_BYTES + 5000);
  next.fill(0, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
  randomBytes(100).copy(next, 5 * BLOCK_BYTES);
  next.fill(0, next.length - 300);
  return next;
}

const childOf = (parent: string, before: Buffer, after: Buffer): Partial<UploadOptions> => ({
  request: { ...request, key: 'job-2 /dev/vda', parentSnapshotId: parent },
  changed: () => differences(before, after),
});

describe('a full upload', () => {
  it('gives a volume equal to the image, without its blocks of zeros', async () => {
    const content = sample();
    const done = await upload(content);
    expectVolume(done.snapshotId, content);
    const snapshot = world.double.ebs.snapshots.get(done.snapshotId)!;
    expect([...snapshot.blocks.keys()].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 7, 9, 12]);
    expect(done.putBlocks).toBe(7);
    expect(snapshot.tags).toEqual({ 'understudy-job': 'job-1' });
    expect(snapshot.checksum).toMatch(/^[A-Za-z0-9+/]{43}=$/);
    expect(await check(content, done.snapshotId)).toEqual({ heldBlocks: 7, readBlocks: 7 });
  });

  it('of an image of zeros puts nothing and completes', async () => {
    const content = Buffer.alloc(3 * BLOCK_BYTES);
    const done = await upload(content);
    expect(done.putBlocks).toBe(0);
    expectVolume(done.snapshotId, content);
  });

  it('has the size of the volume, rounded up to GiB', async () => {
    const sizeBytes = 5.5 * 2 ** 30;
    const byte = sizeBytes - 1;
    const image = {
      sizeBytes,
      read: async (offset: number, length: number) => {
        const bytes = Buffer.alloc(length);
        if (offset <= byte && byte < offset + length) bytes[byte - offset] = 1;
        return bytes;
      },
      nextData: async (offset: number) => (offset > byte ? null : { offset: byte, length: 1 }),
    };
    const done = await upload(Buffer.alloc(0), {
      image,
      request: { ...request, sizeGiB: sizeGiB(sizeBytes) },
    });
    const snapshot = world.double.ebs.snapshots.get(done.snapshotId)!;
    expect(snapshot.sizeGiB).toBe(6);
    expect([...snapshot.blocks.keys()]).toEqual([Math.floor(byte / BLOCK_BYTES)]);
  });

  it('has so many blocks on their way at once as it is told, and no more', async () => {
    const content = randomBytes(24 * BLOCK_BYTES);
    const whole = imageOf(content);
    const all = Promise.withResolvers<void>();
    let [now, most] = [0, 0];
    const read = async (offset: number, length: number) => {
      now += 1;
      most = Math.max(most, now);
      if (now === 6) all.resolve();
      // The first ones wait until there are as many as there may be.
      await all.promise;
      await sleep(systemClock, 2);
      now -= 1;
      return whole.read(offset, length);
    };
    expectVolume(
      (await upload(content, { image: { ...whole, read }, concurrency: 6 })).snapshotId,
      content,
    );
    expect(most).toBe(6);
  });

  it('waits until the snapshot is completed', async () => {
    const asked = () => world.double.calls.filter((call) => call === 'DescribeSnapshots').length;
    // Its time is how often it was asked.
    Object.assign(world.double.ebs.settings, { completionMs: 3, nowMs: asked });
    const done = await upload(sample());
    expect(world.double.ebs.snapshots.get(done.snapshotId)!.state).toBe('completed');
    expect(asked()).toBeGreaterThan(2);
  });

  it('asks for encryption, and a second run with the same record makes nothing', async () => {
    const kmsKeyArn = 'arn:aws:kms:us-east-1:123456789012:key/abc';
    const journal = memoryRecord<UploadRecord>();
    const over = { request: { ...request, encryption: { kmsKeyArn } }, journal };
    const content = sample();
    const first = await upload(content, over);
    expect(world.double.ebs.snapshots.get(first.snapshotId)!.kmsKeyArn).toBe(kmsKeyArn);
    expect(await upload(content, over)).toEqual(first);
    expect(world.double.calls.filter((call) => call === 'StartSnapshot')).toHaveLength(1);
  });
});

describe('a delta over a parent', () => {
  it('gives the new image, with what became zero put as zeros', async () => {
    const before = sample();
    const after = later(before);
    const parent = await upload(before);
    const child = await upload(after, childOf(parent.snapshotId, before, after));
    expectVolume(child.snapshotId, after);
    expectVolume(parent.snapshotId, before);
    expect(child.putBlocks).toBe(4);
    // It lives on when the parent is deleted.
    world.double.ebs.snapshots.delete(parent.snapshotId);
    expectVolume(child.snapshotId, after);
    expect((await check(after, child.snapshotId)).readBlocks).toBe(8);
  });

  it('sends no encryption with a parent that has it', async () => {
    const encryption = { kmsKeyArn: 'arn:aws:kms:us-east-1:123456789012:key/abc' };
    const before = sample();
    const parent = await upload(before, { request: { ...request, encryption } });
    const over = childOf(parent.snapshotId, before, later(before));
    const child = await upload(later(before), {
      ...over,
      request: { ...over.request!, encryption },
    });
    expect(world.double.ebs.snapshots.get(child.snapshotId)!.kmsKeyArn).toBe(encryption.kmsKeyArn);
  });

  it('says that a parent is gone', async () => {
    const over = childOf('snap-00000000000000099', sample(), sample());
    await expect(upload(sample(), over)).rejects.toMatchObject({
      code: 'ERR_EC2_SNAPSHOT_GONE',
      message: expect.stringContaining('new chain'),
    });
  });
});

describe('killed at any call', () => {
  it.each([true, false])(
    'and gone on with, the volume is right (carried out: %s)',
    async (isDone) => {
      const before = sample();
      const after = later(before);
      const parent = await upload(before);
      // Upper bound of the calls of one run; the last one runs through.
      for (let at = 1; at < 12; at += 1) {
        const journal = memoryRecord<UploadRecord>();
        const key = `job-${at}-${isDone} /dev/vda`;
        const delta = childOf(parent.snapshotId, before, after);
        const options = { ...delta, request: { ...delta.request!, key }, journal, concurrency: 2 };
        const { stop, revive } = killAt(world, at, isDone, journal);
        await upload(after, { ...options, stop }).catch(expectKilled);
        revive();
        const done = await upload(after, options);
        expectVolume(done.snapshotId, after);
        expect(done.putBlocks).toBe(4);
        // Its parent, and one for each round: none was begun twice.
        expect(world.double.ebs.snapshots.size).toBe(1 + at);
      }
    },
  );

  it('in the middle of many blocks, it does not begin anew', async () => {
    const content = randomBytes(40 * BLOCK_BYTES);
    const journal = memoryRecord<UploadRecord>();
    const stop = new AbortController();
    let puts = 0;
    world.double.fault = (call) => {
      puts += call === 'PutSnapshotBlock' ? 1 : 0;
      if (puts === 30) stop.abort(new Error('cancelled'));
      return undefined;
    };
    // A cancel writes down how far it came.
    await expect(upload(content, { journal, stop: stop.signal })).rejects.toThrow('cancelled');
    expect(journal.record!.nextBlock).toBeGreaterThan(20);
    const resumed = await upload(content, { journal });
    expectVolume(resumed.snapshotId, content);
    expect(puts).toBeLessThan(50);
  });

  it('a snapshot that AWS gave up meanwhile is deleted and begun anew', async () => {
    const content = sample();
    const journal = memoryRecord<UploadRecord>();
    const stop = new AbortController();
    world.double.fault = (call) => {
      if (call === 'CompleteSnapshot') stop.abort(new Error('killed'));
      return undefined;
    };
    await expect(upload(content, { journal, stop: stop.signal })).rejects.toThrow('killed');
    const [old] = world.double.ebs.snapshots.keys();
    world.double.ebs.snapshots.get(old!)!.isSealed = false;
    world.double.ebs.settings.nowMs = () => Date.now() + 61 * 60_000;
    world.double.fault = () => undefined;
    const notes: string[] = [];
    const done = await upload(content, { journal, onNote: (text) => notes.push(text) });
    expect(notes).toEqual([`${old} is in state error: its upload begins anew`]);
    expect(done.snapshotId).not.toBe(old);
    expect(world.double.ebs.snapshots.has(old!)).toBe(false);
    expectVolume(done.snapshotId, content);
  });
});

const refuse = (status: number, type: string, reason?: string): Fault => ({
  ...{ kind: 'refuse', status, type },
  ...(reason !== undefined && { reason }),
});

describe('refusals', () => {
  it.each([
    ['throttled', refuse(400, 'RequestThrottledException', 'ACCOUNT_THROTTLED')],
    ['an error of the service', refuse(500, 'InternalServerException')],
    ['too slow a block', refuse(400, 'ValidationException', 'WRITE_REQUEST_TIMEOUT')],
    ['no answer', { kind: 'drop', isDone: true } as const],
  ])('%s at every third call: it goes on, and the volume is right', async (_name, fault) => {
    world.double.fault = (call, number) =>
      number % 3 === 0 && (fault.kind === 'drop' || /Put/.test(call)) ? fault : undefined;
    const content = sample();
    const done = await upload(content);
    expectVolume(done.snapshotId, content);
  });

  it.each([
    ['StartSnapshot', refuse(402, 'ServiceQuotaExceededException'), 'ERR_AWS_QUOTA'],
    ['PutSnapshotBlock', refuse(403, 'AccessDeniedException'), 'ERR_AWS_DENIED'],
    ['PutSnapshotBlock', refuse(400, 'ValidationException', 'INVALID_BLOCK'), 'ERR_AWS_REFUSED'],
    ['PutSnapshotBlock', refuse(500, 'InternalServerException'), 'ERR_AWS_UNAVAILABLE'],
  ])('%s refused: one clear line with its code', async (call, fault, code) => {
    world.double.fault = (name) => (name === call ? fault : undefined);
    await expect(upload(sample())).rejects.toMatchObject({
      code,
      message: expect.stringMatching(new RegExp(`^${call} .*(Exception|Error)`)),
    });
  });

  it.each([
    ['AccessDeniedException', 403, 'ebs:PutSnapshotBlock'],
    ['UnauthorizedOperation', 403, 'ebs:PutSnapshotBlock'],
  ])('%s names the right that is missing', async (type, status, action) => {
    world.double.fault = (call) => (call === 'PutSnapshotBlock' ? refuse(status, type) : undefined);
    await expect(upload(sample())).rejects.toMatchObject({
      code: 'ERR_AWS_DENIED',
      message: expect.stringContaining(`the right ${action} is missing`),
    });
  });

  it('snapshots that come too fast for a volume are waited for', async () => {
    let isFirst = true;
    world.double.fault = (call) => {
      if (call !== 'StartSnapshot' || !isFirst) return undefined;
      isFirst = false;
      return refuse(400, 'SnapshotCreationPerVolumeRateExceeded');
    };
    const content = sample();
    expectVolume((await upload(content)).snapshotId, content);
  });

  it('no credentials, and those that have expired, are said so', async () => {
    world.double.fault = () => refuse(400, 'ExpiredTokenException');
    await expect(upload(sample())).rejects.toMatchObject({
      code: 'ERR_AWS_CREDENTIALS',
      message: expect.stringContaining('ExpiredToken'),
    });
    world.double.fault = () => undefined;
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) delete process.env[name];
    process.env.AWS_SHARED_CREDENTIALS_FILE = '/nonexistent';
    process.env.AWS_CONFIG_FILE = '/nonexistent';
    try {
      world.reconnect();
      await expect(upload(sample())).rejects.toMatchObject({
        code: 'ERR_AWS_CREDENTIALS',
        message: expect.stringMatching(/^StartSnapshot .*credentials/i),
      });
    } finally {
      delete process.env.AWS_SHARED_CREDENTIALS_FILE;
      delete process.env.AWS_CONFIG_FILE;
    }
  });

  it('a key that is not known is said so', async () => {
    useKey('AKIAOTHER');
    world.reconnect();
    await expect(upload(sample())).rejects.toMatchObject({ code: 'ERR_AWS_CREDENTIALS' });
  });

  it('waiting for its turn is no part of the time that an answer may take', async () => {
    const once = { tries: 1, firstMs: 1, capMs: 1 };
    world.reconnect({ answerMs: 50, retry: once }, systemClock);
    const asked = { call: 'PutSnapshotBlock', subject: '', stop: new AbortController().signal };
    const turn = () => sleep(systemClock, 200);
    expect(await world.aws.ask({ ...asked, turn }, async () => 'put')).toBe('put');
    await expect(world.aws.ask(asked, turn)).rejects.toMatchObject({
      code: 'ERR_AWS_UNAVAILABLE',
      message: expect.stringContaining('no answer for 50 ms'),
    });
  });

  it('too many pending snapshots', async () => {
    world.double.ebs.settings.pendingLimit = 0;
    await expect(upload(sample())).rejects.toMatchObject({ code: 'ERR_AWS_QUOTA' });
  });

  it('a snapshot that was deleted in the middle', async () => {
    world.double.fault = (call) => {
      if (call === 'CompleteSnapshot') world.double.ebs.snapshots.clear();
      return undefined;
    };
    await expect(upload(sample())).rejects.toMatchObject({ code: 'ERR_EC2_SNAPSHOT_GONE' });
  });

  it('a record of another upload is not gone on with', async () => {
    const journal = memoryRecord<UploadRecord>();
    await upload(sample(), { journal });
    const other = { ...request, parentSnapshotId: 'snap-1' };
    await expect(
      upload(sample(), { journal, request: other, changed: () => [] }),
    ).rejects.toMatchObject({ code: 'ERR_EC2_RECORD' });
  });
});

describe('reading back', () => {
  it('finds a block that differs, one that is missing and one too many', async () => {
    const content = sample();
    const { snapshotId } = await upload(content);
    const { blocks } = world.double.ebs.snapshots.get(snapshotId)!;
    const kept = blocks.get(9)!;
    const other = Buffer.from(kept);
    other[100]! ^= 1;
    blocks.set(9, other);
    await expect(check(content, snapshotId)).rejects.toMatchObject({ code: 'ERR_EC2_MISMATCH' });
    blocks.delete(9);
    await expect(check(content, snapshotId)).rejects.toThrow('block 9');
    blocks.set(9, kept);
    blocks.set(100, Buffer.alloc(BLOCK_BYTES, 1));
    await expect(check(content, snapshotId)).rejects.toThrow('block 100');
    blocks.delete(100);
    await check(content, snapshotId);
  });

  it('of a part reads no more than that, over pages', async () => {
    const content = randomBytes(30 * BLOCK_BYTES);
    world.double.ebs.settings.pageBlocks = 7;
    const { snapshotId } = await upload(content);
    const { heldBlocks, readBlocks } = await check(content, snapshotId, 0.3);
    expect(heldBlocks).toBe(30);
    expect(readBlocks).toBeLessThan(25);
  });
});
