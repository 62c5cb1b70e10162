/** A server that nobody knows is told as such where a command names it: an empty list would say that it has nothing. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assertServerIn } from '../../src/cli/with-repository.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend, fakePoint } from './support/fake-backend.ts';

const folder = mkdtempSync(join(tmpdir(), 'understudy-known-'));
const environment: Record<string, string> = { UNDERSTUDY_TOKEN_FILE: join(folder, 'token') };
let service: Server;

/** `other` is a server without points. */
function backend() {
  const fake = fakeBackend(new Uint8Array(4096));
  const store = { ...fake.store, points: async () => [], lastCommitted: async () => null };
  const plan = async () => ({ keep: [], drop: [], points: [] });
  const servers = async () => (await fake.servers()).map((one) => ({ ...one, server: 'other' }));
  const jobs = { ...fake.jobs, list: () => [] };
  return { ...fake, servers, jobs, store: { ...store, planRetention: plan } as typeof fake.store };
}

beforeAll(async () => {
  writeFileSync(join(folder, 'token'), 'a-token');
  service = createServer(createApiHandler(backend(), 'a-token'));
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  const { port } = service.address() as AddressInfo;
  environment.UNDERSTUDY_STAGING = `http://127.0.0.1:${port}`;
});
afterAll(async () => {
  service.closeAllConnections();
  await new Promise((resolve) => service.close(resolve));
  rmSync(folder, { recursive: true });
});

describe('a name that nobody knows', () => {
  it.each(['point list', 'point list --held', 'job list', 'retention plan --no-estimate'])(
    '%s',
    async (line) => {
      const named = (server: string) =>
        runLine([...line.split(' '), '--json', '--server', server], environment);
      expect(await named('nope')).toMatchObject({
        exitCode: 5,
        out: '',
        err: expect.stringContaining('ERR_SERVER_NOT_FOUND'),
      });
      expect(await named('other')).toMatchObject({ exitCode: 0, err: '' });
    },
  );

  it('point show latest', async () => {
    const code = async (server: string) =>
      (await runLine(['point', 'show', 'latest', '--server', server], environment)).err;
    expect(await code('nope')).toContain('ERR_SERVER_NOT_FOUND');
    expect(await code('other')).toContain('ERR_POINT_NOT_FOUND');
  });

  it('a copy by the service', async () => {
    const { err } = await runLine(
      ['repo', 'copy', '--to', '/far', '--server', 'nope'],
      environment,
    );
    expect(err).toContain('ERR_SERVER_NOT_FOUND');
  });

  it('a repository without a service', async () => {
    const points = async ({ server = 'web1' }) => (server === 'web1' ? [fakePoint('p')] : []);
    await assertServerIn({ points }, 'web1');
    await assertServerIn({ points }, undefined);
    await expect(assertServerIn({ points }, 'nope')).rejects.toMatchObject({
      code: 'ERR_SERVER_NOT_FOUND',
    });
  });
});
