/** What a token of an agent opens: the way for its own server, until it is revoked; and nothing else at all. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { AgentTokens } from '../../src/staging/agent-tokens.ts';
import { createRoutes } from '../../src/staging/api/handler.ts';
import { makeImageGrant, pointOfGrant } from '../../src/staging/image-grant.ts';
import { type RunningStaging, runStaging } from '../../src/staging/service.ts';
import { createDialer } from '../../src/transport/client.ts';
import { helloOf, ScriptedAgent } from './support/scripted-agent.ts';

const root = mkdtempSync(join(tmpdir(), 'uagent-'));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
function newFolder(): string {
  folders += 1;
  return mkdtempSync(join(root, `${folders}-`));
}
const TOKEN = 'a'.repeat(64);
const open = (folder: string, token = TOKEN) => AgentTokens.open(nodeDisk, folder, token);

describe('a token of an agent', () => {
  it('names its server, and is the same when it is asked for again', async () => {
    const tokens = await open(newFolder());
    for (const server of ['web1', '_', 'a.b-c', 'x'.repeat(128)]) {
      const token = tokens.tokenOf(server);
      expect(token).toBe(tokens.tokenOf(server));
      expect(token).toMatch(/^[\x21-\x7e]{16,512}$/);
      expect(tokens.serverOf(token)).toBe(server);
    }
  });

  it('is of one service, and no byte of it may differ', async () => {
    const tokens = await open(newFolder());
    const token = tokens.tokenOf('web1');
    expect((await open(newFolder(), 'b'.repeat(64))).serverOf(token)).toBeNull();
    for (let at = 0; at < token.length; at += 1) {
      const other = token[at] === 'A' ? 'B' : 'A';
      expect(tokens.serverOf(token.slice(0, at) + other + token.slice(at + 1))).toBeNull();
    }
    for (const other of ['', '.', 'agent1', TOKEN, `${token}.`, `.${token}`, token.slice(0, -1)]) {
      expect(tokens.serverOf(other)).toBeNull();
    }
  });

  it('is no credential for an image, nor the other way round', async () => {
    const tokens = await open(newFolder());
    expect(pointOfGrant(TOKEN, tokens.tokenOf('web1'), 0)).toBeNull();
    expect(tokens.serverOf(makeImageGrant(TOKEN, 'web1', 1e15))).toBeNull();
  });

  it('is void when it was revoked, also after a restart; those of other servers are not', async () => {
    const folder = newFolder();
    const tokens = await open(folder);
    const [first, other] = [tokens.tokenOf('web1'), tokens.tokenOf('db1')];
    await tokens.revoke('web1');
    const second = tokens.tokenOf('web1');
    for (const life of [tokens, await open(folder)]) {
      expect(life.serverOf(first)).toBeNull();
      expect([life.serverOf(second), life.serverOf(other)]).toEqual(['web1', 'db1']);
    }
    await Promise.all([tokens.revoke('web1'), tokens.revoke('db1'), tokens.revoke('web1')]);
    for (const life of [tokens, await open(folder)]) {
      expect([first, second, other].map((each) => life.serverOf(each))).toEqual([null, null, null]);
    }
  });

  it.each(['', '{', '{"revisions": 5}', '{"revisions": {"web1": "2"}}', '{"revisions": {"/": 2}}'])(
    'is not given out where the list of revoked ones is damaged: %s',
    async (text) => {
      const folder = newFolder();
      writeFileSync(join(folder, 'agent-revisions'), text);
      await expect(open(folder)).rejects.toMatchObject({ code: 'ERR_REVISIONS_DAMAGED' });
    },
  );

  it('is made for names of servers alone', async () => {
    const tokens = await open(newFolder());
    for (const name of ['', '.x', 'a b', 'a/b', 'x'.repeat(129)]) {
      const refused = { code: 'ERR_AGENT_NAME' };
      expect(() => tokens.tokenOf(name)).toThrow(expect.objectContaining(refused));
      await expect(tokens.revoke(name)).rejects.toMatchObject(refused);
    }
  });
});

const running: RunningStaging[] = [];
afterEach(async () => {
  for (const staging of running.splice(0)) await staging.close();
});

async function start(dataDir = newFolder()) {
  const staging = await runStaging({ dataDir, listen: '127.0.0.1:0', keep: [], log: silentLog });
  running.push(staging);
  const operator = readFileSync(join(dataDir, 'token'), 'utf8').trim();
  const call = (method: string, path: string, token = operator) =>
    fetch(staging.url + path, { method, headers: { authorization: `Bearer ${token}` } });
  const tokenOf = async (server: string) => {
    const response = await call('POST', `/v1/servers/${server}/token`);
    return ((await response.json()) as { token: string }).token;
  };
  const greet = (server: string, token: string) => {
    const volume = {
      ...{ volume: '/dev/vda', sizeBytes: 2 ** 20, sectorBytes: 512 },
      ...{ generation: randomBytes(16).toString('hex'), committedEpoch: 0, syncing: true },
    };
    return ScriptedAgent.greet(
      createDialer({ url: staging.url, token }),
      helloOf(server, [volume]),
    );
  };
  return { staging, dataDir, operator, call, tokenOf, greet };
}

describe('a service', () => {
  it('lets an agent in as the server of its token, and as no other', async () => {
    const { tokenOf, greet, operator } = await start();
    const token = await tokenOf('web1');
    await greet('web1', token).next('welcome');
    expect(await greet('db1', token).refusal()).toBe('ERR_AGENT_TOKEN');
    await greet('db1', operator).next('welcome');
  });

  it('opens nothing to the token of an agent', async () => {
    const { tokenOf, call } = await start();
    const token = await tokenOf('web1');
    const paths = createRoutes().map(({ method, path }) => ({
      method,
      path: path.replaceAll(/\{[^}]*\}/g, 'web1'),
    }));
    expect(paths.length).toBeGreaterThan(40);
    for (const { method, path } of [...paths, { method: 'GET', path: '/v1/openapi.json' }]) {
      const response = await call(method, path, token);
      expect([method, path, response.status]).toEqual([method, path, 401]);
      const { error } = (await response.json()) as { error: { message: string } };
      expect(error.message).toBe('the token is one of an agent');
    }
  });

  it('sends away whose token is revoked, and does not let it in again', async () => {
    const before = await start();
    const { tokenOf, greet, call, dataDir } = before;
    const [token, other] = [await tokenOf('web1'), await tokenOf('db1')];
    const [agent, beside] = [greet('web1', token), greet('db1', other)];
    await agent.next('welcome');
    await beside.next('welcome');
    expect((await call('POST', '/v1/servers/web1/revoke')).status).toBe(200);
    expect(await agent.refusal()).toBe('ERR_AGENT_TOKEN');
    expect(beside.closed).toBeNull();
    await running.pop()!.close();
    const after = await start(dataDir);
    const late = after.greet('web1', token);
    await expect.poll(() => late.closed?.code).toBe('ERR_UNAUTHORIZED');
    await after.greet('web1', await after.tokenOf('web1')).next('welcome');
    await after.greet('db1', other).next('welcome');
  });
});
