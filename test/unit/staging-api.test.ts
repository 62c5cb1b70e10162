/** The REST API over real HTTP with a fake service behind it: authorisation, ranges, errors, OpenAPI. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { createApiHandler, createRoutes } from '../../src/staging/api/handler.ts';
import { parseRange } from '../../src/staging/api/range.ts';
import type { ApiDifferences } from '../../src/staging/api-types.ts';
import { makeImageGrant } from '../../src/staging/image-grant.ts';
import {
  FAR,
  type FakeBackend,
  fakeBackend,
  fakePlanFile,
  VOLUME,
} from './support/fake-backend.ts';

const TOKEN = 'a-token';
const POINT = '20261120T103107.123Z-00000002';
const IMAGE_PATH = `/v1/points/${POINT}/volumes/${encodeURIComponent(VOLUME)}/image`;
const image = Uint8Array.from(
  { length: 3_000_000 },
  (_, index) => (index * 7 + (index >> 8)) & 255,
);
const bearer = { authorization: `Bearer ${TOKEN}` };

let server: Server | null = null;
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((resolve) => (server === null ? resolve(null) : server.close(resolve)));
  server = null;
});

async function serve(backend: FakeBackend = fakeBackend(image)): Promise<string> {
  const listening = createServer(createApiHandler(backend, TOKEN));
  server = listening;
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`;
}

const bytesOf = async (response: Response) => new Uint8Array(await response.arrayBuffer());
const codeOf = async (response: Response) =>
  ((await response.json()) as { error: { code: string } }).error.code;

describe('authorisation', () => {
  it("takes the token as bearer, as any user's password, and as a cookie", async () => {
    const url = await serve();
    const basic = Buffer.from(`anyone:${TOKEN}`).toString('base64');
    for (const headers of [
      bearer,
      { authorization: `Basic ${basic}` },
      { cookie: `x=1; understudy_token=${TOKEN}` },
    ]) {
      expect((await fetch(`${url}/v1/status`, { headers })).status).toBe(200);
    }
  });

  it('refuses everything else, also for the OpenAPI document, and says how to authenticate', async () => {
    const url = await serve();
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic !' }]) {
      for (const path of ['/v1/status', '/v1/openapi.json', IMAGE_PATH, '/nothing']) {
        const response = await fetch(url + path, { headers: headers as Record<string, string> });
        expect(response.status).toBe(401);
        expect(response.headers.get('www-authenticate')).toContain('Basic');
        expect(await codeOf(response)).toBe('ERR_UNAUTHORIZED');
      }
    }
  });
});

describe('differences', () => {
  const OLDER = '20261120T103102.123Z-00000001';
  const path = IMAGE_PATH.replace(/image$/, 'differences');
  const ask = async (query: string) =>
    fetch(`${await serve()}${path}${query}`, { headers: bearer });

  it('come a page at a time, and none twice', async () => {
    const offsets: number[] = [];
    for (let next: number | null = 0; next !== null; ) {
      const response = await ask(`?from=${OLDER}&offset=${next}`);
      const page = (await response.json()) as ApiDifferences;
      offsets.push(...page.extents.map(({ offset }) => offset));
      next = page.next;
    }
    expect(offsets).toEqual(Array.from({ length: 1200 }, (_, at) => at * 131_072));
  });

  it('need a point that is there', async () => {
    expect(await codeOf(await ask(''))).toBe('ERR_API_REQUEST');
    expect(await codeOf(await ask('?from=none'))).toBe('ERR_POINT_NOT_FOUND');
  });
});

describe('a credential for a point', () => {
  const cookie = (point: string, expiresMs = Date.now() + 60_000) => ({
    cookie: `understudy_token=${makeImageGrant(TOKEN, point, expiresMs)}`,
  });
  const status = async (path: string, headers: Record<string, string>, method = 'GET') =>
    (await fetch((await serve()) + path, { headers, method })).status;

  it('opens the images of that point, and their digests', async () => {
    expect(await status(IMAGE_PATH, cookie(POINT))).toBe(200);
    expect(await status(IMAGE_PATH, cookie(POINT), 'HEAD')).toBe(200);
    expect(await status(IMAGE_PATH.replace(/image$/, 'digests'), cookie(POINT))).toBe(200);
  });

  it.each([
    ['another point', IMAGE_PATH, cookie('20261120T103102.123Z-00000001'), 'GET'],
    ['a time that is over', IMAGE_PATH, cookie(POINT, Date.now() - 1), 'GET'],
    ['a change', IMAGE_PATH, cookie(POINT), 'POST'],
    ['the list of points', '/v1/points', cookie(POINT), 'GET'],
    ['the point itself', `/v1/points/${POINT}`, cookie(POINT), 'GET'],
    ['a job', '/v1/jobs', cookie(POINT), 'GET'],
    ['the document', '/v1/openapi.json', cookie(POINT), 'GET'],
  ])('does not open %s', async (_what, path, headers, method) => {
    expect(await status(path, headers, method)).toBe(401);
  });
});

describe('a range', () => {
  it.each([
    [undefined, { kind: 'whole' }],
    ['bytes=0-0', { kind: 'part', start: 0, length: 1 }],
    ['bytes=10-', { kind: 'part', start: 10, length: 90 }],
    ['bytes=-10', { kind: 'part', start: 90, length: 10 }],
    ['bytes=-1000', { kind: 'part', start: 0, length: 100 }],
    ['bytes=90-1000', { kind: 'part', start: 90, length: 10 }],
    ['bytes=100-', { kind: 'unsatisfiable' }],
    ['bytes=-0', { kind: 'unsatisfiable' }],
    ['bytes=5-4', { kind: 'whole' }],
    ['bytes=0-1,5-6', { kind: 'whole' }],
    ['lines=0-1', { kind: 'whole' }],
  ])('%s', (header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected);
  });
});

describe('an image', () => {
  it('is sent whole, in parts, and as a head', async () => {
    const backend = fakeBackend(image);
    const url = await serve(backend);
    const whole = await fetch(url + IMAGE_PATH, { headers: bearer });
    expect(whole.status).toBe(200);
    expect(whole.headers.get('accept-ranges')).toBe('bytes');
    expect(Buffer.compare(await bytesOf(whole), image)).toBe(0);
    const part = await fetch(url + IMAGE_PATH, {
      headers: { ...bearer, range: 'bytes=1048570-2100000' },
    });
    expect(part.status).toBe(206);
    expect(part.headers.get('content-range')).toBe('bytes 1048570-2100000/3000000');
    expect(Buffer.compare(await bytesOf(part), image.subarray(1048570, 2100001))).toBe(0);
    const head = await fetch(url + IMAGE_PATH, { method: 'HEAD', headers: bearer });
    expect(head.headers.get('content-length')).toBe('3000000');
    await expect.poll(backend.openReaders).toBe(0);
  });

  it('honours its validator', async () => {
    const url = await serve();
    const head = await fetch(url + IMAGE_PATH, { method: 'HEAD', headers: bearer });
    const etag = head.headers.get('etag')!;
    const get = async (headers: Record<string, string>) =>
      (await fetch(url + IMAGE_PATH, { headers: { ...bearer, ...headers } })).status;
    expect(await get({ 'if-none-match': etag })).toBe(304);
    expect(await get({ 'if-match': '"other"', range: 'bytes=0-9' })).toBe(412);
    expect(await get({ 'if-range': etag, range: 'bytes=0-9' })).toBe(206);
    expect(await get({ 'if-range': '"other"', range: 'bytes=0-9' })).toBe(200);
    expect(await get({ range: 'bytes=3000000-' })).toBe(416);
  });

  it('ends early rather than send a damaged content, and gives its reader back', async () => {
    const backend = fakeBackend(image, 2_500_000);
    const url = await serve(backend);
    const response = await fetch(url + IMAGE_PATH, { headers: bearer });
    await expect(bytesOf(response)).rejects.toThrow();
    const part = await fetch(url + IMAGE_PATH, { headers: { ...bearer, range: 'bytes=0-99' } });
    expect((await bytesOf(part)).length).toBe(100);
    await expect.poll(backend.openReaders).toBe(0);
  });

  it('of a damaged range is an error with its code, and whoever needs the point is told where', async () => {
    const backend = fakeBackend(image, 2_500_000);
    const told: unknown[] = [];
    const damaged = async (point: string, place: unknown) => void told.push([point, place]);
    const url = await serve({ ...backend, jobs: { ...backend.jobs, damaged } });
    const range = 'bytes=2400000-2600000';
    const response = await fetch(url + IMAGE_PATH, { headers: { ...bearer, range } });
    expect(response.status).toBe(500);
    expect(await codeOf(response)).toBe('ERR_PIECE_DAMAGED');
    expect(response.headers.get('content-range')).toBe(null);
    // Chunk by chunk: the first ones of the range are good.
    const places = [38, 39].map((chunk) => ({ offset: chunk * 65_536, length: 65_536 }));
    expect(told).toEqual(places.map((place) => [POINT, { volume: VOLUME, ...place }]));
    await expect.poll(backend.openReaders).toBe(0);
  });

  it('of an unknown point or volume is not found', async () => {
    const url = await serve();
    const points = await fetch(`${url}/v1/points/none/volumes/x/image`, { headers: bearer });
    expect(points.status).toBe(404);
    expect(await codeOf(points)).toBe('ERR_POINT_NOT_FOUND');
    const volumes = await fetch(`${url}/v1/points/${POINT}/volumes/x/image`, { headers: bearer });
    expect(await codeOf(volumes)).toBe('ERR_VOLUME_NOT_FOUND');
  });
});

describe('bad requests', () => {
  it.each([
    ['GET', '/v1/nothing', '', 404, 'ERR_API_NOT_FOUND'],
    ['POST', '/v1/servers', '', 405, 'ERR_API_METHOD'],
    ['GET', '/v1/points?limit=x', '', 400, 'ERR_API_REQUEST'],
    ['GET', '/v1/points?from=yesterday', '', 400, 'ERR_API_REQUEST'],
    ['GET', '/v1/points/%E0%A4%A', '', 400, 'ERR_API_REQUEST'],
    ['GET', '/v1/servers/other', '', 404, 'ERR_SERVER_NOT_FOUND'],
    ['GET', '/v1/checks/none', '', 404, 'ERR_JOB_NOT_FOUND'],
    ['GET', '/v1/copies/none', '', 404, 'ERR_JOB_NOT_FOUND'],
    ['POST', '/v1/copies/none/stop', '', 404, 'ERR_JOB_NOT_FOUND'],
    ['POST', '/v1/copies', '{"to":"/elsewhere"}', 400, 'ERR_COPY_PLACE'],
    ['POST', '/v1/copies', '{"to":"/far","newest":0}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/copies', '{"to":"/far","verify":"some"}', 400, 'ERR_API_REQUEST'],
    ['GET', '/v1/jobs/none', '', 404, 'ERR_JOB_NOT_FOUND'],
    ['DELETE', '/v1/jobs/none', '', 404, 'ERR_JOB_NOT_FOUND'],
    ['POST', '/v1/drills', '{}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/failovers', '{}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/failovers', '{"point":"none"}', 404, 'ERR_POINT_NOT_FOUND'],
    ['POST', '/v1/failovers', `{"point":"${POINT}"}`, 409, 'ERR_FAILOVER_SOURCE'],
    ['POST', '/v1/jobs/none/again', '{}', 404, 'ERR_JOB_NOT_FOUND'],
    ['POST', '/v1/jobs/former/again', '{}', 409, 'ERR_FAILOVER_SOURCE'],
    ['POST', '/v1/jobs/former/again', '{"yes":1}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/jobs/none/discard', '{}', 404, 'ERR_JOB_NOT_FOUND'],
    ['POST', '/v1/jobs/x/stop', '{"timeoutMs":-1}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/drills', '{"point":"p","options":[]}', 400, 'ERR_API_REQUEST'],
    ['GET', '/v1/servers/none/check', '', 404, 'ERR_SERVER_NOT_FOUND'],
    ['POST', '/v1/servers/web1/check', '{"everyMs":5}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/servers/web1/check', '{"options":{"a":[]}}', 400, 'ERR_API_REQUEST'],
    ['GET', '/v1/plans/none', '', 404, 'ERR_PLAN_NOT_FOUND'],
    ['DELETE', '/v1/plans/none', '', 404, 'ERR_PLAN_NOT_FOUND'],
    ['GET', '/v1/plans/shop/check?kind=test', '', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/plans/shop/drill', '{"at":"soon"}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/plans/shop/failover', '{}', 409, 'ERR_FAILOVER_SOURCE'],
    ['POST', '/v1/jobs/x/retry', '{"step":"1"}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/jobs/x/accept', '{}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/jobs/x/retry', '{"step":1.5}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/points', '{', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/points', '[]', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/points', '{"server":1}', 400, 'ERR_API_REQUEST'],
    ['POST', '/v1/points', `{"a":"${'x'.repeat(1_100_000)}"}`, 400, 'ERR_API_REQUEST'],
  ])('%s %s answers a code', async (method, path, body, status, code) => {
    const url = await serve();
    const sent = body === '' ? {} : { body };
    const response = await fetch(url + path, { method, headers: bearer, ...sent });
    expect(response.status).toBe(status);
    expect(await codeOf(response)).toBe(code);
  });
});

describe('a failover beside another one', () => {
  it.each([
    ['/v1/failovers', { point: POINT }],
    ['/v1/jobs/former/again', {}],
  ])('%s says whether that is agreed', async (path, body) => {
    const backend = fakeBackend(image);
    const asked: unknown[] = [];
    const { jobs } = backend;
    const url = await serve({
      ...backend,
      servers: async () => [],
      jobs: {
        ...jobs,
        start: (request) => jobs.start({ ...request, id: String(asked.push(request.isBeside)) }),
        startAgain: (id, isBeside) => {
          asked.push(isBeside);
          return jobs.startAgain(id);
        },
      },
    });
    for (const yes of [undefined, false, true]) {
      const sent = { method: 'POST', headers: bearer, body: JSON.stringify({ ...body, yes }) };
      expect((await fetch(url + path, sent)).status).toBe(202);
    }
    expect(asked).toEqual([false, false, true]);
  });
});

type Schema = {
  $ref?: string;
  type?: string;
  oneOf?: Schema[];
  enum?: unknown[];
  items?: Schema;
  required?: string[];
  properties?: Record<string, Schema>;
  additionalProperties?: boolean;
};

/** What is wrong with a value, by the few words of JSON schema that the document uses. */
function mismatch(
  value: unknown,
  schema: Schema,
  all: Record<string, Schema>,
  at: string,
): string[] {
  if (schema.$ref !== undefined)
    return mismatch(value, all[schema.$ref.split('/').at(-1)!]!, all, at);
  if (schema.oneOf !== undefined) {
    const tries = schema.oneOf.map((one) => mismatch(value, one, all, at));
    return tries.some((one) => one.length === 0) ? [] : tries[0]!;
  }
  if (schema.enum !== undefined) return schema.enum.includes(value) ? [] : [`${at}: ${value}`];
  if (schema.type === 'array') {
    if (!Array.isArray(value)) return [`${at}: no array`];
    return value.flatMap((item, index) => mismatch(item, schema.items!, all, `${at}[${index}]`));
  }
  if (schema.type === 'object') {
    if (typeof value !== 'object' || value === null) return [`${at}: no object`];
    const known = schema.properties ?? {};
    const given = value as Record<string, unknown>;
    const isOpen = schema.additionalProperties === true;
    const extra = Object.keys(given).filter((key) => !(key in known) && !isOpen);
    const missing = (schema.required ?? []).filter((key) => !(key in given));
    const inner = Object.entries(given).flatMap(([key, item]) =>
      key in known ? mismatch(item, known[key]!, all, `${at}.${key}`) : [],
    );
    return [
      ...extra.map((k) => `${at}.${k}: undocumented`),
      ...missing.map((k) => `${at}.${k}: missing`),
      ...inner,
    ];
  }
  if (schema.type === 'null') return value === null ? [] : [`${at}: not null`];
  if (schema.type === 'integer') return Number.isInteger(value) ? [] : [`${at}: no integer`];
  return typeof value === schema.type ? [] : [`${at}: no ${schema.type}`];
}

describe('the OpenAPI document', () => {
  it('names every route, and every answer is as it says', async () => {
    const url = await serve();
    const response = await fetch(`${url}/v1/openapi.json`, { headers: bearer });
    const document = (await response.json()) as {
      paths: Record<string, Record<string, unknown>>;
      components: { schemas: Record<string, Schema> };
    };
    const all = document.components.schemas;
    const bodies: Record<string, unknown> = {
      '/v1/points': { server: 'web1', wait: true },
      '/v1/servers/{server}/admit': { hardwareId: 'x' },
      '/v1/check': { readData: true },
      '/v1/copies': { to: FAR, verify: 'new' },
      '/v1/points/{point}/hold': { reason: 'a lawsuit' },
      '/v1/servers/{server}/keep': { keep: 'all=1h' },
      '/v1/drills': { point: POINT },
      '/v1/ec2/prestage/{server}': { isOn: false, endsChain: true },
      '/v1/failovers': { point: POINT, yes: true },
      '/v1/jobs/{job}/stop': { timeoutMs: 1000 },
      '/v1/failbacks': { server: 'web1', hardwareId: 'x' },
      '/v1/failbacks/preview': { server: 'web1', hardwareId: 'x' },
      '/v1/failbacks/{job}/written': {
        ...{ volume: VOLUME, point: POINT, chunks: 1, different: 0, writtenBytes: 0 },
        words: ['i-0123456789abcdef0'],
      },
      '/v1/points/{point}/volumes/{volume}/compare': {
        ...{ first: 0, digests: Buffer.alloc(32).toString('base64') },
      },
      '/v1/servers/{server}/check': { everyMs: 3_600_000, options: { probe: 'tcp:22' } },
      '/v1/plans': fakePlanFile,
      '/v1/plans/{plan}/failover': { yes: true },
      '/v1/jobs/{job}/retry': { step: 1 },
      '/v1/jobs/{job}/accept': { step: 1 },
    };
    const queries: Record<string, string> = {
      '/v1/points/{point}/volumes/{volume}/differences': `?from=${POINT}`,
    };
    let job = '';
    for (const route of createRoutes()) {
      expect(document.paths[route.path]?.[route.method.toLowerCase()]).toBeDefined();
      if (route.responseSchema === null) continue;
      const path = route.path
        .replace('{point}', POINT)
        .replace('{volume}', encodeURIComponent(VOLUME))
        .replace('{server}', 'web1')
        .replace('{plan}', 'shop')
        .replace('{job}', job);
      const sent = route.method === 'POST' ? { body: JSON.stringify(bodies[route.path]) } : {};
      const query = queries[route.path] ?? '';
      const answer = await fetch(url + path + query, {
        method: route.method,
        headers: bearer,
        ...sent,
      });
      expect(answer.status, path).toBe(route.status);
      const value = (await answer.json()) as { jobId?: string };
      job = value.jobId ?? job;
      expect(mismatch(value, all[route.responseSchema]!, all, path)).toEqual([]);
    }
  });
});
