/** `point list --verified`, and the same over REST: points that have booted, however many lie between. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import type { ApiPoints } from '../../src/staging/api-types.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend, fakePoint } from './support/fake-backend.ts';

const TOKEN = 'secret';
const idOf = (number: number) => `20261120T103107.123Z-${String(number).padStart(8, '0')}`;
/** Newest first. */
const points: ListedPoint[] = Array.from({ length: 3500 }, (_, at) => fakePoint(idOf(3500 - at)));
const verdicts = new Map([
  [idOf(3400), true],
  [idOf(3399), false],
  [idOf(2000), true],
  [idOf(7), true],
]);

let server: Server;
let folder: string;
let url: string;
let pages: number;
beforeEach(async () => {
  const base = fakeBackend(Buffer.alloc(1));
  pages = 0;
  const backend = {
    ...base,
    store: {
      ...base.store,
      async points({ after, limit = 100 }: { after?: string; limit?: number }) {
        pages += 1;
        const start = after === undefined ? 0 : points.findIndex(({ id }) => id === after) + 1;
        return points.slice(start, start + limit);
      },
    },
    plans: {
      ...base.plans,
      verdicts: {
        of: async (ids: readonly string[]) =>
          new Map([...verdicts].filter(([id]) => ids.includes(id))),
      },
    },
  };
  server = createServer(createApiHandler(backend as typeof base, TOKEN));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  folder = mkdtempSync(join(tmpdir(), 'understudy-verified-'));
  writeFileSync(join(folder, 'token'), TOKEN);
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

async function get(query: string) {
  const headers = { authorization: `Bearer ${TOKEN}` };
  const response = await fetch(`${url}/v1/points?${query}`, { headers });
  return (await response.json()) as ApiPoints & { error?: { code: string; message: string } };
}
const idsOf = ({ points: found }: ApiPoints) => found.map(({ id }) => id);
const run = (...words: string[]) =>
  runLine(['point', 'list', ...words], {
    ...{ UNDERSTUDY_STAGING: url, UNDERSTUDY_TOKEN_FILE: join(folder, 'token') },
  });

it('come a page at a time, and none that has failed or was never booted', async () => {
  const all = await get('verified=true');
  expect(idsOf(all)).toEqual([idOf(3400), idOf(2000), idOf(7)]);
  expect(all.next).toBe(null);
  const first = await get('verified=true&limit=2');
  expect(idsOf(first)).toEqual([idOf(3400), idOf(2000)]);
  const second = await get(`verified=true&limit=2&after=${first.next}`);
  expect(idsOf(second)).toEqual([idOf(7)]);
  expect(second.next).toBe(null);
  expect(pages).toBeLessThan(12);
  expect((await get('limit=3')).points).toHaveLength(3);
});

it('go neither with one time, nor with the last commit', async () => {
  for (const other of ['latest=true', 'at=2026-11-20T10:31:08Z']) {
    expect((await get(`verified=true&${other}`)).error).toMatchObject({ code: 'ERR_API_REQUEST' });
  }
});

it('are listed by the command, which needs a service for it', async () => {
  const listed = await run('--verified');
  expect(listed.exitCode, listed.err).toBe(0);
  expect(listed.out.match(/20261120T\S+Z-\d+/g)).toEqual([idOf(3400), idOf(2000), idOf(7)]);
  const one = await run('--verified', '--limit', '1', '--json');
  expect((JSON.parse(one.out) as { id: string }[]).map(({ id }) => id)).toEqual([idOf(3400)]);
  const offline = await run('--verified', '--repo', folder);
  expect(offline.exitCode).toBe(2);
  expect(offline.err).toMatch(/--verified needs a service/);
});
