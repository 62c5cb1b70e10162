/** Sessions and servers over a network in memory: what the agent and the operator are told. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { errorCatalogue, UnderstudyError } from '../../src/base/errors.ts';
import { createLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { wholeEntry } from '../../src/model/entry.ts';
import { Register } from '../../src/staging/register.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FakeStore } from './support/fake-store.ts';
import { digestOf, rawPiece } from './support/messages.ts';
import { helloOf, ScriptedAgent } from './support/scripted-agent.ts';
import {
  first,
  GENERATION,
  hello,
  makeWorld,
  patchOf,
  settled,
  useFolder,
  volumes,
} from './support/servers-world.ts';

const folder = useFolder();

describe('a volume that is damaged at staging', () => {
  it('has its session ended at once, with a reason that brings the agent back', async () => {
    const { servers, network } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    servers.rescan('none');
    servers.rescan('web');
    const { code } = await agent.next('refusal');
    expect(code).toBe('ERR_RESCAN_DEMANDED');
    expect(errorCatalogue.ERR_RESCAN_DEMANDED.retryable).toBe(true);
    await settled();
    await ScriptedAgent.connect(network.dialer, hello);
  });
});

describe('a session', () => {
  it('carries offers, contents, patches and a commit to the store, and their answers back', async () => {
    const { fake, servers, network } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    agent.say({
      type: 'offer',
      seq: 0,
      volume: 0,
      synced: 2,
      entries: [0, 1].map((index) => ({
        index,
        count: 1,
        entry: wholeEntry(digestOf(`c${index}`)),
      })),
    });
    expect(await agent.next('answer')).toEqual({
      type: 'answer',
      seq: 1,
      need: Uint8Array.of(1, 1),
      changed: 2,
    });
    agent.say({ type: 'pieces', seq: 1, pieces: [rawPiece('c0'), rawPiece('c1')] });
    expect(await agent.next('stored')).toEqual({ type: 'stored', seq: 1, bytes: 4 });
    agent.say(patchOf('p'));
    expect(await agent.next('stored')).toEqual({ type: 'stored', seq: 2, bytes: 1 });
    agent.commit(1000, first);
    expect(await agent.next('committed')).toEqual({
      type: 'committed',
      pointId: 'point-1',
      volumes: first,
    });
    expect(fake.calls).toEqual([
      ...['begin web', 'offer 0', 'pieces', 'durable', 'patch 0', 'durable', 'commit'],
    ]);
    expect(fake.listed[0]!.missingVolumes).toEqual(['/b']);
    await servers.stop();
    expect(fake.calls.at(-1)).toBe('close');
  });

  it('many batches share one sync', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.durableGate.isShut = true;
    for (let i = 0; i < 50; i += 1) agent.say(patchOf(`p${i}`));
    await settled();
    fake.durableGate.open();
    expect((await agent.next('stored')).seq).toBe(1);
    expect((await agent.next('stored')).seq).toBe(50);
    expect(fake.calls.filter((call) => call === 'durable')).toHaveLength(2);
    await servers.stop();
  });

  it('says nothing is stored before the store says it is durable', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.durableGate.isShut = true;
    agent.say(patchOf('p'));
    await settled();
    expect(fake.calls).toContain('patch 0');
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome']);
    fake.durableGate.open();
    await agent.next('stored');
    await servers.stop();
  });

  it('resumes at what was committed', async () => {
    const world = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(world.network.dialer, hello);
    agent.say(patchOf('p'));
    const contentDigest = agent.digests.current(0);
    agent.commit(1000, first);
    await agent.next('committed');
    world.network.cut();
    const again = await ScriptedAgent.connect(world.network.dialer, hello);
    expect(again.welcome.volumes).toEqual([
      { committed: { generation: GENERATION, epoch: 1, contentDigest }, syncedChunks: 0 },
      { committed: null, syncedChunks: 0 },
    ]);
    await world.servers.stop();
  });

  it('tells which chunks a commit lacks', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.missing = { kind: 'missing', volumes: [{ volume: 0, chunks: [1, 5], more: true }] };
    agent.commit(1000, first);
    expect(await agent.next('missing')).toEqual({
      type: 'missing',
      volumes: [{ volume: 0, chunks: [1, 5], more: true }],
    });
    await servers.stop();
  });

  it('holds the network back while the store is slow, and loses nothing', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.offerGate.isShut = true;
    const entries = [{ index: 0, count: 1, entry: wholeEntry(digestOf('x')) }];
    for (let i = 0; i < 300; i += 1)
      agent.say({ type: 'offer', seq: 0, volume: 0, synced: 0, entries });
    await settled();
    expect(agent.received).toHaveLength(1);
    fake.offerGate.open();
    for (let seq = 1; seq <= 300; seq += 1) expect((await agent.next('answer')).seq).toBe(seq);
    await servers.stop();
  });
});

describe('one live instance of a server', () => {
  it('a newer connection of the same machine takes over, when the former has given everything back', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const old = await ScriptedAgent.connect(network.dialer, hello);
    fake.commitGate.isShut = true;
    old.commit(1000, first);
    await settled();
    const newer = ScriptedAgent.greet(network.dialer, hello);
    expect(await old.refusal()).toBe('ERR_SESSION_REPLACED');
    await settled();
    expect(newer.received).toEqual([]);
    fake.commitGate.open();
    await newer.next('welcome');
    // What the former session had committed is known to the new one.
    expect(newer.welcome.volumes[0]!.committed?.epoch).toBe(1);
    expect(fake.calls).toEqual(['begin web', 'commit', 'close', 'begin web']);
    expect(servers.describe()[0]).toMatchObject({ connected: true, points: 1 });
    await servers.stop();
  });

  it('of three that come at once, the last stays', async () => {
    const { network, servers } = await makeWorld(folder);
    const agents = [1, 2, 3].map(() => ScriptedAgent.greet(network.dialer, hello));
    await agents[2]!.next('welcome');
    expect(await agents[0]!.refusal()).toBe('ERR_SESSION_REPLACED');
    expect(await agents[1]!.refusal()).toBe('ERR_SESSION_REPLACED');
    agents[2]!.say(patchOf('p'));
    await agents[2]!.next('stored');
    await servers.stop();
  });

  const clone = helloOf('web', volumes, 'other hardware');

  it('other hardware is refused and shown, the first goes on', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    const other = ScriptedAgent.greet(network.dialer, clone);
    expect(await other.refusal()).toBe('ERR_OTHER_HARDWARE');
    expect(servers.describe()[0]).toMatchObject({
      connected: true,
      hardwareId: 'hardware',
      pendingHardwareId: 'other hardware',
    });
    agent.say(patchOf('p'));
    await agent.next('stored');
    await servers.stop();
  });

  it('is remembered over a restart', async () => {
    const before = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(before.network.dialer, hello);
    agent.commit(1000, first);
    await agent.next('committed');
    await before.servers.stop();
    const { network, servers } = await makeWorld(folder, systemClock, before.fake);
    const other = ScriptedAgent.greet(network.dialer, clone);
    expect(await other.refusal()).toBe('ERR_OTHER_HARDWARE');
    await ScriptedAgent.connect(network.dialer, hello);
    await servers.stop();
  });

  it('other hardware may take over once an operator has admitted it; then the first is the other', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    await ScriptedAgent.greet(network.dialer, clone).refusal();
    await expect(servers.admit('web', 'third')).rejects.toMatchObject({
      code: 'ERR_HARDWARE_NOT_PENDING',
    });
    await expect(servers.admit('none', 'x')).rejects.toMatchObject({
      code: 'ERR_SERVER_NOT_FOUND',
    });
    await servers.admit('web', 'other hardware');
    expect(await agent.refusal()).toBe('ERR_OTHER_HARDWARE');
    await ScriptedAgent.connect(network.dialer, clone);
    expect(servers.describe()[0]).toMatchObject({
      hardwareId: 'other hardware',
      pendingHardwareId: null,
    });
    expect(await ScriptedAgent.greet(network.dialer, hello).refusal()).toBe('ERR_OTHER_HARDWARE');
    await servers.stop();
  });

  it('of two machines that come at once under a new name, one has it then', async () => {
    const { network, servers, register } = await makeWorld(folder);
    const agents = [hello, clone].map((each) => ScriptedAgent.greet(network.dialer, each));
    await expect.poll(() => agents.every(({ received }) => received.length > 0)).toBe(true);
    await settled();
    // At most one is left; whoever is in the register may come again, and only that one.
    expect(agents.filter((agent) => agent.closed === null).length).toBeLessThanOrEqual(1);
    const isFirst = register.get('web')?.hardwareId === hello.hardwareId;
    await ScriptedAgent.connect(network.dialer, isFirst ? hello : clone);
    const loser = ScriptedAgent.greet(network.dialer, isFirst ? clone : hello);
    expect(await loser.refusal()).toBe('ERR_OTHER_HARDWARE');
    await servers.stop();
  });

  it('refuses a damaged register', async () => {
    const { servers, network } = await makeWorld(folder);
    await ScriptedAgent.connect(network.dialer, hello);
    await servers.stop();
    const path = join(folder.path, 'servers');
    await writeFile(path, (await readFile(path, 'utf8')).replace('"hardware"', '"hardwarf"'));
    await expect(Register.open(nodeDisk, folder.path)).rejects.toMatchObject({
      code: 'ERR_REGISTER_DAMAGED',
    });
  });
});

describe('trouble of the store', () => {
  it('a full disk is told as such: agents may try again, after longer and longer waits', async () => {
    const clock = new VirtualClock();
    const { fake, network, servers, broken } = await makeWorld(folder, clock);
    const until = async (ms: number) => {
      await clock.runUntil(ms);
      await settled();
      await clock.runUntil(ms + 1);
    };
    const tries = async (ms: number): Promise<string> => {
      fake.failures.set('patch', new UnderstudyError('ERR_DISK_FULL', 'no space'));
      await clock.runUntil(ms);
      const agent = ScriptedAgent.greet(network.dialer, hello);
      await until(ms + 10);
      if (agent.received[0]?.type !== 'welcome') return agent.received[0]?.type ?? '';
      agent.say(patchOf('p'));
      await until(ms + 20);
      expect(agent.received.at(-1)).toMatchObject({ type: 'refusal', code: 'ERR_DISK_FULL' });
      return 'welcome';
    };
    expect(await tries(100)).toBe('welcome');
    expect(servers.describe()[0]).toMatchObject({ state: 'stalled', connected: false });
    expect(servers.describe()[0]!.volumes[0]!.reason).toContain('no space');
    expect(await tries(600)).toBe('refusal');
    expect(await tries(1200)).toBe('welcome');
    expect(await tries(2600)).toBe('refusal');
    expect(await tries(3400)).toBe('welcome');
    fake.failures.clear();
    await clock.runUntil(8000);
    const agent = ScriptedAgent.greet(network.dialer, hello);
    await until(8100);
    agent.commit(1000, first);
    await until(8200);
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome', 'committed']);
    expect(broken).toEqual([]);
  });

  it.each<[string, UnderstudyError]>([
    ['damage', new UnderstudyError('ERR_JOURNAL_DAMAGED', 'damaged')],
    ['a store that has stopped', new UnderstudyError('ERR_STORE_FAILED', 'fsync failed')],
  ])('%s stops the service; the agent is told to try again later', async (_name, failure) => {
    const { fake, network, servers, broken } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.failures.set('durable', failure);
    agent.say(patchOf('p'));
    expect(await agent.refusal()).toBe('ERR_STAGING_FAILED');
    expect(broken).toEqual([failure]);
    expect(agent.received.map(({ type }) => type)).not.toContain('stored');
    await servers.stop();
  });

  it('a defect is one of the service', async () => {
    const { fake, network, servers, broken } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.failures.set('commit', new TypeError('undefined is not a function') as UnderstudyError);
    agent.commit(1000, first);
    expect(await agent.refusal()).toBe('ERR_STAGING_FAILED');
    expect(broken.map(({ code }) => code)).toEqual(['ERR_BUG']);
    await servers.stop();
  });
});

describe('points on demand', () => {
  it('ask the agent, and come with its commit', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    const { requestId, committed } = servers.requestPoint('web', 60_000);
    expect(await agent.next('cut-request')).toEqual({ type: 'cut-request', requestId });
    agent.commit(1000, first, requestId);
    expect(await committed).toBe('point-1');
    await servers.stop();
  });

  it('are asked for again where the agent has connected anew', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    const { requestId, committed } = servers.requestPoint('web', 60_000);
    await agent.next('cut-request');
    network.cut();
    const again = await ScriptedAgent.connect(network.dialer, hello);
    expect((await again.next('cut-request')).requestId).toBe(requestId);
    again.commit(1000, first, requestId);
    expect(await committed).toBe('point-1');
    await servers.stop();
  });

  it('have their time', async () => {
    const { network, servers } = await makeWorld(folder);
    await ScriptedAgent.connect(network.dialer, hello);
    const { committed } = servers.requestPoint('web', 10);
    await expect(committed).rejects.toMatchObject({ code: 'ERR_POINT_TIMEOUT' });
    await servers.stop();
  });

  it('cannot be had of a server that is unknown, or away', async () => {
    const { network, servers } = await makeWorld(folder);
    expect(() => servers.requestPoint('none', 1)).toThrow(
      expect.objectContaining({ code: 'ERR_SERVER_NOT_FOUND' }),
    );
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    agent.connection.abort();
    await settled();
    expect(() => servers.requestPoint('web', 1)).toThrow(
      expect.objectContaining({ code: 'ERR_SERVER_OFFLINE' }),
    );
    await servers.stop();
  });
});

describe('what is told of a server', () => {
  it('is what its agent reports, what came in, and how old the newest whole point is', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    agent.say({
      type: 'status',
      volumes: [
        {
          volume: 0,
          state: 'continuous',
          backlogBytes: 5,
          syncedBytes: 1,
          totalBytes: 2,
          reason: '',
          missedCompletions: 0,
          suspectBlocks: 0,
        },
        {
          volume: 1,
          state: 'initial-sync',
          backlogBytes: 6,
          syncedBytes: 1,
          totalBytes: 2,
          reason: 'x',
          missedCompletions: 3,
          suspectBlocks: 4,
        },
      ],
    });
    agent.say(patchOf('p'));
    const cutMs = Date.now() - 3000;
    agent.commit(cutMs, [...first, { ...first[0]!, volume: 1 }]);
    await agent.next('committed');
    const [server] = servers.describe();
    expect(server).toMatchObject({
      server: 'web',
      connected: true,
      state: 'initial-sync',
      backlogBytes: 11,
      points: 1,
      contentBytes: 1,
    });
    expect(server!.lagMs).toBeGreaterThanOrEqual(3000);
    expect(server!.lagMs).toBeLessThanOrEqual(Date.now() - cutMs);
    expect(server!.volumes[1]).toMatchObject({
      state: 'initial-sync',
      reason: 'x',
      epoch: 1,
      missedCompletions: 3,
    });
    expect(servers.receivedBytes()).toBeGreaterThan(100);
    await servers.stop();
  });

  it('a partial point does not count as the newest whole one', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    agent.commit(Date.now(), first);
    await agent.next('committed');
    expect(servers.describe()[0]).toMatchObject({ lagMs: null, newestPoint: { id: 'point-1' } });
    await servers.stop();
  });

  it('partial points are told when they begin and when they end, not one by one', async () => {
    const told: string[] = [];
    const log = createLog({ sink: (line) => told.push(JSON.parse(line).message) });
    const world = await makeWorld(folder, systemClock, new FakeStore(), 'local', log);
    const agent = await ScriptedAgent.connect(world.network.dialer, hello);
    for (const epochs of [[1], [2], [3], [4, 1], [5, 2]]) {
      const cuts = epochs.map((epoch, volume) => ({ volume, generation: GENERATION, epoch }));
      agent.commit(Date.now(), cuts);
      await agent.next('committed');
    }
    const points = told.filter((message) => message.startsWith('points'));
    expect(points).toEqual(['points are partial', 'points are whole']);
    await world.servers.stop();
  });
});

describe('silence', () => {
  it('of an agent that has greeted ends the session within seconds', async () => {
    const clock = new VirtualClock();
    const { fake, network, servers } = await makeWorld(folder, clock);
    const agent = ScriptedAgent.greet(network.dialer, hello);
    await clock.runUntil(100);
    await settled();
    await clock.runUntil(200);
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome']);
    await clock.runUntil(60_000);
    expect(agent.closed).toBeNull();
    network.stall(true);
    await clock.runUntil(75_000);
    await settled();
    expect(fake.calls).toEqual(['begin web', 'close']);
    expect(servers.describe()[0]).toMatchObject({ connected: false });
  });

  it('instead of Hello ends the connection', async () => {
    const clock = new VirtualClock();
    const { network } = await makeWorld(folder, clock);
    const agent = new ScriptedAgent(network.dialer, () => undefined);
    await clock.runUntil(9000);
    expect(agent.closed).toBeNull();
    await clock.runUntil(11_000);
    expect(agent.closed?.code).toBe('ERR_CONNECTION_LOST');
  });
});

describe('stopping', () => {
  it('ends all sessions, waits for a commit that is under way, and admits nobody any more', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    const { committed } = servers.requestPoint('web', 60_000);
    const outcome = committed.then(String, (error: UnderstudyError) => error.code);
    fake.commitGate.isShut = true;
    agent.commit(1000, first);
    await settled();
    const stopped = servers.stop();
    expect(await agent.refusal()).toBe('ERR_STAGING_STOPPING');
    const late = ScriptedAgent.greet(network.dialer, hello);
    expect(await late.refusal()).toBe('ERR_STAGING_STOPPING');
    fake.commitGate.open();
    await stopped;
    expect(fake.calls).toEqual(['begin web', 'commit', 'close']);
    expect(await outcome).toBe('ERR_STAGING_STOPPING');
  });
});
