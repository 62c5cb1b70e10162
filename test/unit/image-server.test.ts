/**
 * The image server of a machine's disk: what an outage is, and is waited for; what damage is, and is an error at
 * once. Asked by QEMU's own programs, against a service that answers as told.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { endProcess, processOf } from '../../src/recovery/made.ts';
import { imageServerPaths, startImageServer } from '../../src/recovery/qemu/image-server.ts';
import { ImageSource } from '../../src/recovery/qemu/image-source.ts';

const run = promisify(execFile);
const SIZE = 3 * 2 ** 20 + 512;
const image = Buffer.alloc(SIZE, 0).map((_, at) => (at * 7 + (at >> 12)) & 255);
const BAD = 2 ** 20;

type Mood = 'well' | 'damaged' | 'away' | 'busy' | 'short';
let folder: string;
let service: Server;
let mood: Mood;
let asked: { range: string; cookie: string }[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'uis-'));
  writeFileSync(join(folder, 'cookie'), 'a=b');
  [mood, asked] = ['well', []];
  service = createServer((request, response) => {
    const { range = '', cookie = '' } = request.headers;
    asked.push({ range, cookie });
    const [, from, to] = /bytes=(\d+)-(\d+)/.exec(range)!.map(Number);
    const fail = (status: number, code: string) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: { code, message: 'as told', hint: '' } }));
    };
    if (mood === 'away') request.destroy();
    else if (mood === 'busy') fail(503, 'ERR_OBJECTS_UNAVAILABLE');
    else if (mood === 'damaged' && from! <= BAD && to! >= BAD) fail(500, 'ERR_PIECE_DAMAGED');
    else {
      const bytes = image.subarray(from!, to! + 1);
      response.writeHead(206, { 'content-length': bytes.length });
      if (mood !== 'short') response.end(bytes);
      else response.write(bytes.subarray(0, 100), () => response.destroy());
    }
  });
  await new Promise<void>((done) => service.listen(join(folder, 'images.sock'), done));
});
afterEach(async () => {
  await endProcess(imageServerPaths(folder, 0).pidfile, systemClock);
  service.closeAllConnections();
  service.close();
  rmSync(folder, { recursive: true });
});

const address = () => ({
  ...{ url: 'http://localhost/v1/x/image', socketPath: join(folder, 'images.sock') },
  cookieFile: join(folder, 'cookie'),
});

async function start(): Promise<string> {
  const logPath = join(folder, 'log');
  const where = { runFolder: folder, index: 0, sizeBytes: SIZE, clock: systemClock, logPath };
  await startImageServer(address(), { ...where, isLow: true });
  const { pidfile, socketPath } = imageServerPaths(folder, 0);
  expect(processOf(pidfile)).not.toBe(null);
  return `nbd+unix:///?socket=${socketPath}`;
}

/** What qemu-io says of commands, one after the other. */
const io = async (uri: string, ...commands: string[]): Promise<string> => {
  const words = ['-r', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri];
  const { stdout, stderr } = await run('qemu-io', words).catch((error) => error);
  return `${stdout}${stderr}`;
};

describe('the image server', () => {
  it('gives every byte, to several at once, with the credential as it is in its file', async () => {
    const uri = await start();
    const out = join(folder, 'out.raw');
    const again = join(folder, 'again.raw');
    writeFileSync(join(folder, 'cookie'), 'c=d');
    await Promise.all([out, again].map((to) => run('qemu-img', ['convert', '-O', 'raw', uri, to])));
    writeFileSync(join(folder, 'true.raw'), image);
    for (const path of [out, again]) await run('cmp', [path, join(folder, 'true.raw')]);
    expect(new Set(asked.map(({ cookie }) => cookie))).toEqual(new Set(['c=d']));
  });

  it('answers a damaged place with an error at once, all others with their bytes, and asks anew', async () => {
    const uri = await start();
    mood = 'damaged';
    const told = await io(uri, `read ${BAD} 4096`, 'read 0 4096', `read ${BAD + 4096} 4096`);
    expect(told.match(/read failed: Input\/output error/g)).toHaveLength(1);
    expect(told.match(/read 4096\/4096 bytes/g)).toHaveLength(2);
    expect(asked.filter(({ range }) => range.startsWith(`bytes=${BAD}-`))).toHaveLength(1);
    mood = 'well';
    expect(await io(uri, `read ${BAD} 4096`)).toContain('read 4096/4096');
  });

  it.each([['away'], ['busy'], ['short']] as const)(
    'waits while the service is %s, and sees no error',
    async (trouble) => {
      const uri = await start();
      mood = trouble;
      const answer = io(uri, `read ${BAD} 4096`);
      while (asked.length < 3) await new Promise((done) => setTimeout(done, 20));
      mood = 'well';
      expect(await answer).toContain('read 4096/4096');
    },
  );

  it('refuses what lies outside and what is too long, and cuts off whoever would write', async () => {
    await start();
    const request = (kind: number, offset: number, length: number) => {
      const bytes = Buffer.alloc(28);
      bytes.writeUInt32BE(0x25609513, 0);
      bytes.writeUInt16BE(kind, 6);
      bytes.writeBigUInt64BE(BigInt(offset), 16);
      bytes.writeUInt32BE(length, 24);
      return bytes;
    };
    const hello = Buffer.alloc(20);
    hello.writeUInt32BE(3, 0);
    hello.writeBigUInt64BE(0x49484156454f5054n, 4);
    hello.writeUInt32BE(1, 12);
    const socket = connect(imageServerPaths(folder, 0).socketPath);
    const parts: Buffer[] = [];
    socket.on('data', (part: Buffer) => parts.push(part));
    const closed = new Promise((done) => socket.on('close', done));
    socket.write(hello);
    socket.write(request(0, SIZE - 10, 11));
    socket.write(request(0, 0, 2 ** 20 + 1));
    socket.write(request(1, 0, 4));
    await closed;
    // The greeting (18), the export (10), an answer of 16 each: EINVAL.
    const all = Buffer.concat(parts);
    expect(all.length).toBe(60);
    expect([32, 48].map((at) => all.readUInt32BE(at))).toEqual([22, 22]);
    expect(asked).toEqual([]);
  });
});

describe('the source of an image', () => {
  it('asks on for as long as it takes, and not for whoever has gone', async () => {
    let nowMs = 0;
    const tries: number[] = [];
    const gone = new AbortController();
    const clock = {
      ...systemClock,
      after(delayMs: number, next: () => void) {
        nowMs += delayMs;
        tries.push(nowMs);
        // A day of a service that is not there.
        if (nowMs > 86_400_000) gone.abort(new Error('gone'));
        const handle = setImmediate(next);
        return { cancel: () => clearImmediate(handle) };
      },
    };
    const said: string[] = [];
    const nowhere = { ...address(), cookieFile: join(folder, 'none') };
    const source = new ImageSource(nowhere, clock, (line) => void said.push(line));
    await expect(source.read(0, 512, gone.signal)).rejects.toThrow('gone');
    expect(tries.length).toBeGreaterThan(86_000);
    expect(said).toHaveLength(1);
  });
});
