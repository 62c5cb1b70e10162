/** Ranges as the commands read them: whatever ends an answer too early, the reason is told. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createRestClient } from '../../src/cli/rest-client.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import { fakeBackend, VOLUME } from './support/fake-backend.ts';

const POINT = '20261120T103107.123Z-00000002';
const PATH = `/v1/points/${POINT}/volumes/${encodeURIComponent(VOLUME)}/image`;
const image = Buffer.alloc(4 * 2 ** 20, 0).map((_, at) => (at >> 9) & 255);

let folder: string;
let server: Server;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'urange-'));
  writeFileSync(join(folder, 'token'), 'a-token\n', { mode: 0o600 });
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

async function clientOf(answer: RequestListener) {
  server = createServer(answer);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const signal = new AbortController().signal;
  return createRestClient({ url, tokenFile: join(folder, 'token'), caFile: undefined, signal });
}

it('a place that is damaged far into a range is told as what it is, with what can be done', async () => {
  const client = await clientOf(createApiHandler(fakeBackend(image, 3_500_000), 'a-token'));
  expect((await client.range(PATH, 0, 3 * 2 ** 20)).length).toBe(3 * 2 ** 20);
  await expect(client.range(PATH, 0, image.length)).rejects.toMatchObject({
    ...{ code: 'ERR_PIECE_DAMAGED', spec: { hint: expect.stringContaining('repo repair') } },
  });
});

it('an answer that the network has cut is asked for again in steps', async () => {
  const handler = createApiHandler(fakeBackend(image), 'a-token');
  let cut = 0;
  const client = await clientOf((request, response) => {
    if (cut === 0) {
      cut += 1;
      response.writeHead(206, { 'content-length': image.length });
      response.write(image.subarray(0, 100), () => response.destroy());
    } else handler(request, response);
  });
  const bytes = Buffer.from(await client.range(PATH, 0, image.length));
  expect(bytes.equals(image)).toBe(true);
});
