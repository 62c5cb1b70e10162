/** The client of the REST API: what an answer without a body leaves untold. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeFailure } from '../../src/cli/failure.ts';
import { createRestClient, type RestClient } from '../../src/cli/rest-client.ts';

const folder = mkdtempSync(join(tmpdir(), 'understudy-rest-'));
const body = JSON.stringify({ error: { code: 'ERR_OBJECT_MISSING', message: 'a map is gone' } });
let service: Server;
let client: RestClient;

beforeAll(async () => {
  writeFileSync(join(folder, 'token'), 'a-token');
  service = createServer(({ method }, response) => {
    response.writeHead(500, { 'content-length': body.length });
    response.end(method === 'HEAD' ? undefined : body);
  });
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  client = await createRestClient({
    url: `http://127.0.0.1:${(service.address() as AddressInfo).port}`,
    tokenFile: join(folder, 'token'),
    caFile: undefined,
    signal: new AbortController().signal,
  });
});
afterAll(async () => {
  service.closeAllConnections();
  await new Promise((resolve) => service.close(resolve));
  rmSync(folder, { recursive: true });
});

it('an image that cannot be opened is told by what is wrong with it', async () => {
  const error = { code: 'ERR_OBJECT_MISSING', message: 'a map is gone' };
  await expect(client.head('/v1/points/p/volumes/v/image')).rejects.toMatchObject(error);
});

it('https to a port without TLS is told as that', async () => {
  const url = client.url.replace('http:', 'https:');
  const signal = new AbortController().signal;
  const given = { url, tokenFile: join(folder, 'token'), caFile: undefined, signal };
  const wrong = await createRestClient(given);
  const error = await wrong.call('GET', '/v1/status').catch((thrown: unknown) => thrown);
  expect(describeFailure(error, { verbose: false }).lines[0]).toBe(
    `error: no answer from ${url}: it speaks no TLS (http?) (ERR_CLI_UNREACHABLE)`,
  );
});
