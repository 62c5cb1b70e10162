/** The agent's side towards its machine: admission, facts, identity, status socket, worker threads. */
import { randomBytes } from 'node:crypto';
import { chmodSync, linkSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { admit, admitSize, type BlockFacts, type VolumeFacts } from '../../src/agent/admission.ts';
import { checkServerName, readIdentity } from '../../src/agent/identity.ts';
import { createInlinePipeline } from '../../src/agent/pipeline.ts';
import type { AgentStatus } from '../../src/agent/report.ts';
import { readStatus, serveStatus, socketPath } from '../../src/agent/status-socket.ts';
import { volumeFacts } from '../../src/agent/volume-facts.ts';
import { createWorkerPipeline } from '../../src/agent/worker-pipeline.ts';
import { decodeMessage } from '../../src/protocol/codec.ts';
import { shortFolder } from './support/short-folder.ts';

let folder = '';
beforeEach(() => {
  folder = shortFolder('understudy-agent-');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const disk = (minor: number, over: Partial<BlockFacts> = {}): VolumeFacts => ({
  path: `/dev/d${minor}`,
  realPath: `/dev/d${minor}`,
  kind: 'block',
  block: {
    major: 8,
    minor,
    diskMajor: 8,
    diskMinor: minor,
    kernelName: `d${minor}`,
    slaves: [],
    multipath: '',
    backingFile: '',
    ...over,
  },
});
const file = (path: string, identity: string): VolumeFacts => ({
  path,
  realPath: path,
  kind: 'file',
  identity,
});
const other = (facts: object): VolumeFacts =>
  ({ path: '/x', realPath: '/x', ...facts }) as VolumeFacts;

describe('admission', () => {
  const rows: [string, VolumeFacts[], string, RegExp][] = [
    ['missing', [other({ kind: 'unreadable', errno: 'ENOENT' })], 'ERR_DEVICE_OPEN', /x: ENOENT/],
    [
      'folder',
      [other({ kind: 'directory', mountedFrom: '/dev/vda1' })],
      'ERR_DEVICE_NOT_VOLUME',
      /behind it is \/dev\/vda1/,
    ],
    ['tty', [other({ kind: 'other' })], 'ERR_DEVICE_NOT_VOLUME', /neither/],
    ['multipath', [disk(0, { multipath: 'dm-0' })], 'ERR_TRACKER_REFUSED', /dm-0/],
    ['twice', [disk(0), disk(0)], 'ERR_TRACKER_OVERLAP', /one device/],
    ['partition', [disk(0), disk(1, { diskMinor: 0 })], 'ERR_TRACKER_OVERLAP', /its partition/],
    ['stacked', [disk(0), disk(9, { slaves: ['d0'] })], 'ERR_TRACKER_OVERLAP', /stacked/],
    ['hard links', [file('/a', '1:2'), file('/b', '1:2')], 'ERR_TRACKER_OVERLAP', /one file/],
    ['loop', [file('/a', '1:2'), disk(7, { backingFile: '/a' })], 'ERR_TRACKER_OVERLAP', /loop/],
  ];
  it.each(rows)('refuses: %s', (_, volumes, code, message) => {
    expect(() => admit(volumes)).toThrow(expect.objectContaining({ code }));
    expect(() => admit(volumes)).toThrow(message);
  });

  it('refuses what has no size that can be told', () => {
    const refusal = (message: RegExp) =>
      expect.objectContaining({
        code: 'ERR_DEVICE_NOT_VOLUME',
        message: expect.stringMatching(message),
      });
    expect(() => admitSize('/dev/sr0', 0)).toThrow(refusal(/sr0 has no bytes/));
    expect(() => admitSize('/dev/md0', 2 ** 46 + 512)).toThrow(refusal(/up to 64/));
    admitSize('/dev/sda', 512);
    admitSize('/dev/sdb', 2 ** 46);
  });

  it('takes disks, two partitions of one disk, and files', () => {
    admit([disk(1, { diskMinor: 0 }), disk(2, { diskMinor: 0 }), disk(16), file('/a', '1:1')]);
  });
});

describe('facts of a path', () => {
  it('tell files, links to them, folders and what is not there', () => {
    const path = join(folder, 'volume');
    writeFileSync(path, 'x');
    symlinkSync(path, join(folder, 'symbolic'));
    linkSync(path, join(folder, 'hard'));
    const facts = ['volume', 'symbolic', 'hard'].map((name) => volumeFacts(join(folder, name)));
    expect(new Set(facts.map((each) => each.kind === 'file' && each.identity)).size).toBe(1);
    expect(volumeFacts(folder).kind).toBe('directory');
    expect(volumeFacts('/dev/null').kind).toBe('other');
    expect(volumeFacts(join(folder, 'no'))).toMatchObject({ kind: 'unreadable', errno: 'ENOENT' });
  });

  it('name the device behind a mounted folder', () => {
    const mountinfo = join(folder, 'mountinfo');
    const place = join(folder, 'a place');
    mkdirSync(place);
    const row = `36 35 8:1 / ${place.replaceAll(' ', '\\040')} rw,noatime shared:1 - ext4 /dev/sda1 rw`;
    writeFileSync(mountinfo, `22 1 0:1 / / rw - overlay overlay rw\n${row}\n`);
    expect(volumeFacts(place, { sys: folder, mountinfo })).toMatchObject({
      kind: 'directory',
      mountedFrom: '/dev/sda1',
    });
  });
});

describe('identity', () => {
  it('is the same each time, with a digest of the hardware', () => {
    const identity = readIdentity('web-1', '1.0');
    expect(identity).toEqual(readIdentity('web-1', '1.0'));
    expect(identity.hardwareId).toMatch(/^[0-9a-f]{64}$/);
    expect(identity.bootId).toMatch(/^[0-9a-f-]{36}$/);
  });

  it.each(['', '.x', '-x', 'a b', 'a/b', 'ä', 'x'.repeat(129)])('refuses the name "%s"', (name) => {
    expect(() => checkServerName(name)).toThrow(
      expect.objectContaining({ code: 'ERR_AGENT_NAME' }),
    );
  });
});

describe('status socket', () => {
  const status = { server: 'web', pid: 7 } as AgentStatus;

  it('answers with one line, and keeps a second agent away', async () => {
    const socket = await serveStatus(folder, 'web', () => status);
    expect(await readStatus(folder, 'web')).toEqual(status);
    await expect(serveStatus(folder, 'web', () => status)).rejects.toMatchObject({
      code: 'ERR_AGENT_RUNNING',
    });
    await socket.close();
    await expect(readStatus(folder, 'web')).rejects.toMatchObject({
      code: 'ERR_AGENT_NOT_RUNNING',
    });
  });

  it('takes the place of one that a dead agent left', async () => {
    const path = socketPath(folder, 'web');
    await new Promise<void>((resolve) => {
      const stale = createServer().listen(path, () => {
        // Closing would remove the name: another name keeps it.
        linkSync(path, `${path}.kept`);
        stale.close(() => resolve());
      });
    });
    linkSync(`${path}.kept`, path);
    const socket = await serveStatus(folder, 'web', () => status);
    expect(await readStatus(folder, 'web')).toEqual(status);
    await socket.close();
  });

  it('has a path that a unix socket can have, for any name', () => {
    const long = ['a', 'b'].map((end) => socketPath('/run/understudy', 'x'.repeat(127) + end));
    expect(long[0]).not.toBe(long[1]);
    expect(long[0]!.length).toBeLessThan(108);
  });

  it('says so where it may not be made', async () => {
    const place = join(folder, 'sealed');
    writeFileSync(place, '');
    chmodSync(place, 0o600);
    await expect(serveStatus(place, 'web', () => status)).rejects.toThrow();
  });
});

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe('pipeline in threads', () => {
  const parts = Array.from({ length: 8 }, (_, chunk) => ({
    chunk,
    mask: chunk % 2 === 0 ? 0 : 0b101,
    at: chunk % 2 === 0 ? [chunk * 65536] : [chunk * 65536, chunk * 65536 + 8192],
    length: chunk % 2 === 0 ? 65536 : 4096,
  }));
  const makeBuffers = () =>
    Array.from({ length: 2 }, () => {
      const bytes = new Uint8Array(new SharedArrayBuffer(8 * 65536));
      bytes.set(randomBytes(3 * 65536));
      bytes.fill(7, 5 * 65536);
      return bytes;
    });

  it('does the same as in place', async () => {
    const buffers = makeBuffers();
    const inline = createInlinePipeline(buffers);
    const threads = createWorkerPipeline(buffers, 2);
    const patch = { kind: 'patch', buffer: 1, frameAt: 100, seq: 5, volume: 0, parts } as const;
    const [here, there] = await Promise.all([inline.patch(patch), threads.patch(patch)]);
    expect(isSame(there.frame, here.frame)).toBe(true);
    expect(decodeMessage(there.frame)).toMatchObject({ type: 'patch', seq: 5 });
    expect(isSame(there.entries, here.entries)).toBe(true);
    expect(there.pieceBytes).toBe(here.pieceBytes);
    const ranges = Uint32Array.from([0, 65536, 3 * 65536, 65536]);
    const digest = { kind: 'digest', buffer: 0, ranges } as const;
    const [a, b] = await Promise.all([threads.digest(digest), inline.digest(digest)]);
    expect(isSame(a.digests, b.digests)).toBe(true);
    expect((await threads.digest(digest)).zeros).toEqual(Uint8Array.from([0, 1]));
    await threads.close();
  });

  it('builds frames that do not fit in memory of their own', async () => {
    const buffers = makeBuffers();
    const threads = createWorkerPipeline(buffers, 1);
    const frameAt = 8 * 65536 + 60_000;
    const patch = { kind: 'patch', buffer: 0, frameAt, seq: 5, volume: 0, parts } as const;
    const inline = await createInlinePipeline(buffers).patch(patch);
    expect(isSame((await threads.patch(patch)).frame, inline.frame)).toBe(true);
    await threads.close();
  });

  it('fails the tasks that are open when it is stopped', async () => {
    const threads = createWorkerPipeline(makeBuffers(), 1);
    // Work for a minute: whoever was to answer it before it is stopped would be quicker than the stop.
    const ranges = new Uint32Array(2 ** 21).map((_, at) => (at % 2 === 0 ? 0 : 65536));
    const open = threads.digest({ kind: 'digest', buffer: 0, ranges });
    const failed = expect(open).rejects.toMatchObject({ code: 'ERR_BUG' });
    await Promise.all([failed, threads.close()]);
  });
});
