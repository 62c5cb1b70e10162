/** The service as it runs: real files, sockets, threads and store; a scripted agent; images by HTTP. */
import { execFile, execFileSync } from 'node:child_process';
import { hash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { compressSync } from 'lz4-napi';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { type IndexedEntry, wholeEntry, ZERO_ENTRY } from '../../src/model/entry.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { WirePiece } from '../../src/protocol/messages.ts';
import type { ApiServer } from '../../src/staging/api-types.ts';
import { type RunningStaging, runStaging, type StagingOptions } from '../../src/staging/service.ts';
import { createDialer } from '../../src/transport/client.ts';
import { helloOf, ScriptedAgent } from './support/scripted-agent.ts';

const run = promisify(execFile);
const root = mkdtempSync(join(tmpdir(), 'understudy-service-'));
afterAll(() => rmSync(root, { recursive: true }));

const VOLUME = '/dev/disk/a b';
const GENERATION = 'ab'.repeat(16);
let folders = 0;
const running: RunningStaging[] = [];
afterEach(async () => {
  for (const staging of running.splice(0)) await staging.close();
});

async function start(options: Partial<StagingOptions> = {}) {
  folders += 1;
  const dataDir = options.dataDir ?? join(root, `data-${folders}`);
  const staging = await runStaging({
    dataDir,
    listen: '127.0.0.1:0',
    keep: [],
    log: silentLog,
    ...options,
  });
  running.push(staging);
  const token = readFileSync(join(dataDir, 'token'), 'utf8').trim();
  return { staging, dataDir, token, headers: { authorization: `Bearer ${token}` } };
}
type Started = Awaited<ReturnType<typeof start>>;

/** 3 MiB and a bit: random, text and zero chunks, and a short last one. */
function makeImage(): Buffer {
  const image = Buffer.alloc(50 * CHUNK_BYTES + 12_345);
  for (let chunk = 0; chunk < 50; chunk += 1) {
    const part = image.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
    if (chunk % 3 === 0) randomBytes(CHUNK_BYTES).copy(part);
    if (chunk % 3 === 1) part.fill(`chunk ${chunk} `);
  }
  image.fill('tail', 50 * CHUNK_BYTES);
  return image;
}

const helloFor = (image: Buffer, generation = GENERATION) =>
  helloOf('web', [
    {
      volume: VOLUME,
      sizeBytes: image.length,
      sectorBytes: 512,
      generation,
      committedEpoch: 0,
      syncing: true,
    },
  ]);

/** Sends all of the image by offers of sixteen chunks, and waits until it is stored. */
async function sync(agent: ScriptedAgent, image: Buffer): Promise<{ sent: number }> {
  let seq = 0;
  let sent = 0;
  for (let from = 0; from * CHUNK_BYTES < image.length; from += 16) {
    const pieces: WirePiece[] = [];
    const entries: IndexedEntry[] = [];
    for (let index = from; index < from + 16 && index * CHUNK_BYTES < image.length; index += 1) {
      const raw = image.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES);
      const isZero = raw.every((byte) => byte === 0);
      const digest = new Uint8Array(hash('sha256', raw, 'buffer'));
      entries.push({ index, count: 1, entry: isZero ? ZERO_ENTRY : wholeEntry(digest) });
      if (isZero) continue;
      const packed = compressSync(raw);
      const codec = packed.length < raw.length ? 1 : 0;
      pieces.push({ digest, codec, rawLength: raw.length, stored: codec === 1 ? packed : raw });
    }
    agent.say({ type: 'offer', seq: 0, volume: 0, synced: from + entries.length, entries });
    const { need } = await agent.next('answer');
    seq += 1;
    const wanted = pieces.filter((_, i) => need[i] === 1);
    sent += wanted.length;
    if (wanted.length > 0) agent.say({ type: 'pieces', seq, pieces: wanted });
  }
  while ((await agent.next('stored')).seq < seq);
  return { sent };
}

async function replicate({ staging, token }: Started, image: Buffer) {
  const dialer = createDialer({ url: staging.url, token });
  const agent = await ScriptedAgent.connect(dialer, helloFor(image));
  await sync(agent, image);
  agent.commit(Date.now(), [{ volume: 0, generation: GENERATION, epoch: 1 }]);
  const { pointId } = await agent.next('committed');
  const path = `/v1/points/${pointId}/volumes/${encodeURIComponent(VOLUME)}/image`;
  return { agent, pointId, url: staging.url + path };
}

describe('starting', () => {
  it('makes a token that only its owner can read, and keeps it', async () => {
    const { staging, dataDir, token } = await start();
    expect(token).toMatch(/^[0-9a-f]{64}$/);
    expect(statSync(join(dataDir, 'token')).mode & 0o777).toBe(0o600);
    await staging.close();
    expect((await start({ dataDir })).token).toBe(token);
  });

  it.each([
    ['0.0.0.0:0', 'ERR_TLS_REQUIRED'],
    ['[::]:0', 'ERR_TLS_REQUIRED'],
    ['192.0.2.1:7007', 'ERR_TLS_REQUIRED'],
    ['127.0.0.1', 'ERR_USAGE'],
    ['127.0.0.1:99999', 'ERR_USAGE'],
    [':7007', 'ERR_USAGE'],
  ])('at %s is refused with %s, and nothing is made', async (listen, code) => {
    const dataDir = join(root, 'never-made');
    await expect(start({ dataDir, listen })).rejects.toMatchObject({ code });
    expect(() => statSync(dataDir)).toThrow();
  });

  it('at an address in use says so, and leaves the data directory free', async () => {
    const { staging } = await start();
    const dataDir = join(root, 'address-in-use');
    const listen = new URL(staging.url).host;
    await expect(start({ dataDir, listen })).rejects.toMatchObject({ code: 'ERR_LISTEN' });
    await start({ dataDir });
  });

  it('on a data directory in use is refused', async () => {
    const { dataDir } = await start();
    await expect(start({ dataDir })).rejects.toMatchObject({ code: 'ERR_DATA_IN_USE' });
  });

  it('with TLS files that are none is refused', async () => {
    const file = join(root, 'no.pem');
    writeFileSync(file, 'not a certificate');
    const tls = { certFile: file, keyFile: file };
    await expect(start({ tls })).rejects.toMatchObject({ code: 'ERR_TLS_FILES' });
    await expect(start({ tls: { ...tls, keyFile: '/none' } })).rejects.toMatchObject({
      code: 'ERR_TLS_FILES',
    });
  });

  it('with a token file that holds none is refused', async () => {
    const { staging, dataDir } = await start();
    await staging.close();
    writeFileSync(join(dataDir, 'token'), '');
    await expect(start({ dataDir })).rejects.toMatchObject({ code: 'ERR_TOKEN_DAMAGED' });
  });
});

describe('an agent', () => {
  it('with a wrong token is not let in', async () => {
    const { staging } = await start();
    const dialer = createDialer({ url: staging.url, token: 'wrong' });
    const agent = ScriptedAgent.greet(dialer, helloFor(makeImage()));
    expect((await agent.end()).code).toBe('ERR_UNAUTHORIZED');
  });

  it('replicates; what it sent is not asked for again, also after a restart of the service', async () => {
    const image = makeImage();
    const first = await start();
    const { agent } = await replicate(first, image);
    expect(agent.welcome.volumes).toEqual([{ committed: null, syncedChunks: 0 }]);
    await first.staging.close();
    expect((await agent.end()).spec.retryable).toBe(true);

    const { staging, token, headers } = await start({ dataDir: first.dataDir });
    const dialer = createDialer({ url: staging.url, token });
    const other = 'cd'.repeat(16);
    const again = await ScriptedAgent.connect(dialer, helloFor(image, other));
    expect(again.welcome.volumes[0]!.committed).toMatchObject({ generation: GENERATION, epoch: 1 });
    expect(await sync(again, image)).toEqual({ sent: 0 });
    const response = await fetch(`${staging.url}/v1/servers/web`, { headers });
    const server = (await response.json()) as ApiServer;
    expect(server).toMatchObject({ connected: true, contentBytes: 0, dedupeHits: 35, points: 1 });
    expect(server.dedupedBytes).toBe(34 * CHUNK_BYTES + 12_345);
  });

  it('that was cut off in its sync goes on where it was', async () => {
    const image = makeImage();
    const { staging, token } = await start();
    const dialer = createDialer({ url: staging.url, token });
    const agent = await ScriptedAgent.connect(dialer, helloFor(image));
    await sync(agent, image);
    agent.connection.abort();
    const again = await ScriptedAgent.connect(dialer, helloFor(image));
    expect(again.welcome.volumes[0]).toEqual({ committed: null, syncedChunks: 51 });
    again.commit(Date.now(), [{ volume: 0, generation: GENERATION, epoch: 1 }]);
    await again.next('committed');
  });

  it('cuts a point on demand, sealed when it is answered', async () => {
    const image = makeImage();
    const started = await start();
    const { agent } = await replicate(started, image);
    const { staging, headers } = started;
    const asked = fetch(`${staging.url}/v1/points`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ server: 'web', wait: true, timeoutMs: 120_000 }),
    });
    const { requestId } = await agent.next('cut-request');
    agent.commit(Date.now(), [{ volume: 0, generation: GENERATION, epoch: 2 }], requestId);
    const answer = (await (await asked).json()) as { point: { state: string; server: string } };
    expect(answer.point).toMatchObject({ server: 'web', state: 'sealed' });
  });
});

describe('the image', () => {
  const image = makeImage();
  const digest = hash('sha256', image);

  it('is read by curl: whole, by ranges, its head', async () => {
    const started = await start();
    const { url } = await replicate(started, image);
    const curl = (...words: string[]) =>
      run('curl', ['-sS', '-u', `any:${started.token}`, ...words, url], {
        encoding: 'buffer',
        maxBuffer: 2 ** 26,
      });
    expect(hash('sha256', (await curl()).stdout)).toBe(digest);
    const part = (await curl('-r', '65530-131100')).stdout;
    expect(Buffer.compare(part, image.subarray(65_530, 131_101))).toBe(0);
    const last = (await curl('-r', '-1000')).stdout;
    expect(Buffer.compare(last, image.subarray(-1000))).toBe(0);
    const head = (await curl('-I')).stdout.toString();
    expect(head).toMatch(/accept-ranges: bytes/i);
    expect(head).toMatch(new RegExp(`content-length: ${image.length}`, 'i'));
  });

  it('is read by qemu-img', async () => {
    const started = await start();
    const { url } = await replicate(started, image);
    const out = join(root, 'by-qemu.raw');
    const source = {
      driver: 'raw',
      file: { driver: 'http', url, cookie: `understudy_token=${started.token}` },
    };
    await run('qemu-img', ['convert', '-O', 'raw', `json:${JSON.stringify(source)}`, out]);
    const copied = readFileSync(out);
    // qemu-img makes the size a multiple of 512.
    expect(copied.length).toBe(Math.ceil(image.length / 512) * 512);
    expect(hash('sha256', copied.subarray(0, image.length))).toBe(digest);
  });

  it('is read by nbdkit', async () => {
    const started = await start();
    const { url } = await replicate(started, image);
    const password = join(root, 'password');
    writeFileSync(password, started.token, { mode: 0o600 });
    const out = join(root, 'by-nbdkit.raw');
    await run('nbdkit', [
      ...['-U', '-', 'curl', `url=${url}`, 'user=any', `password=+${password}`],
      ...['--run', `qemu-img convert -f raw -O raw "$uri" ${out}`],
    ]);
    expect(hash('sha256', readFileSync(out).subarray(0, image.length))).toBe(digest);
  });

  it('that is not read to its end does not hold the service up', async () => {
    const started = await start();
    const { url } = await replicate(started, image);
    const response = await fetch(url, { headers: started.headers });
    await response.body!.cancel();
    await started.staging.close();
  });
});

describe('over TLS', () => {
  it('serves agents and operators that trust its certificate', async () => {
    const certFile = join(root, 'cert.pem');
    const keyFile = join(root, 'key.pem');
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
        ...['-keyout', keyFile, '-out', certFile, '-days', '2', '-subj', '/CN=staging'],
        ...['-addext', 'subjectAltName=IP:127.0.0.1'],
      ],
      { stdio: 'ignore' },
    );
    const image = makeImage();
    const { staging, token } = await start({ tls: { certFile, keyFile }, listen: '0.0.0.0:0' });
    const url = `https://127.0.0.1:${new URL(staging.url).port}`;
    const authority = readFileSync(certFile, 'utf8');
    const agent = await ScriptedAgent.connect(
      createDialer({ url, token, authority }),
      helloFor(image),
    );
    await sync(agent, image);
    const words = ['-sS', '--cacert', certFile, '-H', `Authorization: Bearer ${token}`];
    const { stdout } = await run('curl', [...words, `${url}/v1/servers`]);
    expect(JSON.parse(stdout)).toMatchObject({ servers: [{ server: 'web', connected: true }] });
  });
});
