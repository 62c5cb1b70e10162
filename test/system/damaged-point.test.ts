/**
 * A point of which one chunk is damaged for good: a machine that reads there gets an error at once, as from a disk
 * with a bad sector, and everything that reads the point says which, where, and what can be done.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import type { ApiJob } from '../../src/staging/api-types.ts';
import { bootDisk, sshKeyOf } from '../tools/boot-disk.ts';
import { BOOT_MS, endAll, expectRefusal, freePort } from './helpers/machines.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const KIB64 = 65_536;
const CHUNKS = 32;
const BAD = 5;
const SMALL = ['--memory', '256MiB', '--accel', 'tcg', '--prepare', 'none'];

/** Flips a bit of a chunk wherever it is stored; what it was flipped in. */
function flip(folder: string, chunk: Buffer): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true });
  const files = names.filter((entry) => entry.isFile());
  return files.flatMap((entry) => {
    const path = join(entry.parentPath, entry.name);
    const bytes = readFileSync(path);
    const at = bytes.indexOf(chunk.subarray(100, 200));
    if (at < 0) return [];
    bytes[at + 100]! ^= 1;
    writeFileSync(path, bytes);
    return [path];
  });
}

/** Runs a command in the guest, as root; what it prints, also where it fails. */
async function inGuest(scratch: Scratch, port: number, command: string): Promise<string> {
  const key = scratch.path('key');
  copyFileSync(sshKeyOf(bootDisk()), key);
  chmodSync(key, 0o600);
  const ways = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR'];
  const words = ['-i', key, '-p', String(port), ...ways.flatMap((way) => ['-o', way])];
  const { stdout } = await promisify(execFile)(
    'ssh',
    [...words, 'root@127.0.0.1', `(${command}) 2>&1; true`],
    { timeout: BOOT_MS },
  );
  return stdout.trim();
}

const dd = (chunk: number, more = ''): string =>
  `dd if=/dev/vdb of=/dev/null bs=65536 count=1 skip=${chunk} iflag=direct ${more}`;

it('gives an error at once where it is read, and is told by the job, its check, its copy and an export', async () => {
  await withScratch('damaged', async (scratch) => {
    const [disk, data, dataFolder] = ['disk', 'more', 'data'].map((name) => scratch.path(name));
    const content = randomBytes(CHUNKS * KIB64);
    copyFileSync(bootDisk(), disk!);
    writeFileSync(data!, content);
    const place = { dataFolder: dataFolder! };
    let staging = await Staging.start(scratch, place);
    scratch.defer(() => endAll(dataFolder!));
    const words = ['--tracker', 'scan'];
    const volumes = [disk!, data!];
    const agent = startAgent(scratch, staging, { volumes, server: 'guest', words });
    await staging.waitForPoints(1);
    await agent.stop();
    const point = (await staging.points())[0]!.id;
    await staging.daemon.stop();
    const bad = content.subarray(BAD * KIB64, (BAD + 1) * KIB64);
    expect(flip(dataFolder!, bad).length).toBeGreaterThan(0);
    staging = await Staging.start(scratch, place);
    mkdirSync(join(dataFolder!, 'probe-keys'));
    copyFileSync(sshKeyOf(bootDisk()), join(dataFolder!, 'probe-keys/drill'));
    const where = `point ${point} is damaged at bytes ${BAD * KIB64}-${(BAD + 1) * KIB64 - 1} of ${data}`;

    // The check reads it: the drill has failed, and says why, long before its time is over.
    const drill = await staging.run(
      ...['drill', 'start', '--point', point, ...SMALL, '--check', '--timeout', '9m', '--wait'],
      ...['--probe', 'ssh:', '--probe-key', 'drill', '--probe-run', dd(BAD)],
    );
    expectRefusal(drill, 'ERR_BOOT_CHECK', 3);
    expect(drill.err).toContain(where);
    expect(drill.err).toContain('repo repair');
    const [drilled] = await staging.json<ApiJob[]>('job', 'list');
    expect(drilled!.check).toMatchObject({ passed: false, detail: expect.stringContaining(where) });

    // A failover goes on: an error where it is damaged, the bytes everywhere else.
    const port = await freePort();
    const { id } = await staging.json<ApiJob>(
      ...['failover', 'start', ...SMALL, '--server', 'guest', '--forward', `${port}:22`, '--wait'],
    );
    const jobOf = () => staging.json<ApiJob>('job', 'show', id);
    const logOf = async () => (await staging.run('job', 'log', id)).out;
    await waitFor(
      'the guest',
      async () => (await inGuest(scratch, port, 'echo here').catch(() => '')) === 'here',
      { timeoutMs: BOOT_MS },
    );
    expect(await inGuest(scratch, port, dd(BAD))).toMatch(/Input\/output error|I\/O error/);
    expect(await inGuest(scratch, port, dd(BAD + 1))).toContain('1+0 records out');
    const isCopied = async () => (await logOf()).includes('is not complete');
    await waitFor('the end of the copy', isCopied, { timeoutMs: BOOT_MS });
    expect(await logOf()).toContain(where);
    const job = await jobOf();
    expect(job).toMatchObject({
      ...{ phase: 'up', standsAlone: false },
      damage: [{ volume: data, offset: BAD * KIB64, length: KIB64 }],
    });
    expect((await staging.run('job', 'show', id)).out).toMatch(/WARNING: +point .* is damaged/);
    const listed = await staging.run('job', 'list');
    expect(listed.out).toContain('POINT DAMAGED');
    expect(listed.err).toContain(`are damaged (job show tells where): ${id}`);

    // Nor can it be exported; the error says of what.
    const out = scratch.path('out.raw');
    const exported = await staging.run(
      ...['image', 'export', '--point', point, '--volume', data!, '--out', out],
    );
    expectRefusal(exported, 'ERR_PIECE_DAMAGED', 4);
    expect(exported.err).toContain(point);
    expect(exported.err).toContain(data);

    // A part of it is written: that can neither be kept nor be lost, so the guest waits until it is mended.
    const write = `dd if=/dev/zero of=/dev/vdb bs=4096 count=1 seek=${BAD * 16} oflag=direct`;
    const written = inGuest(scratch, port, write);
    await waitFor(
      'a paused guest',
      async () => /^the guest is paused: .*damaged at the point/.test((await jobOf()).phase),
      { timeoutMs: BOOT_MS },
    );
    await staging.daemon.stop();
    flip(dataFolder!, bad);
    staging = await Staging.start(scratch, place);
    expect(await written).toContain('1+0 records out');
    await waitFor('a machine that stands alone', async () => (await jobOf()).standsAlone, {
      timeoutMs: BOOT_MS,
    });
    expect((await jobOf()).damage).toEqual([]);
    expect(await inGuest(scratch, port, dd(BAD))).toContain('1+0 records out');
    expect((await staging.run('failover', 'stop', id)).exitCode).toBe(0);
    expect((await staging.run('failover', 'discard', id, '--yes')).exitCode).toBe(0);
  });
});
