/** `--durability object`: nothing is acknowledged, in whatever way, before the repository has it. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FakeStore } from './support/fake-store.ts';
import { ScriptedAgent } from './support/scripted-agent.ts';
import { first, hello, makeWorld, patchOf, settled, useFolder } from './support/servers-world.ts';

const folder = useFolder();
const away = new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', 'the bucket is away');

async function world(fake = new FakeStore()) {
  const clock = new VirtualClock();
  const made = await makeWorld(folder, clock, fake, 'object');
  /** Heartbeats of both sides go on meanwhile. */
  const pass = async (ms: number) => {
    for (const end = clock.monotonicMs() + ms; clock.monotonicMs() < end; ) {
      await clock.runUntil(clock.monotonicMs() + 200);
      await settled();
    }
  };
  return { ...made, clock, pass };
}

describe('durability object', () => {
  it('acknowledges a commit once its point is sealed, however long that takes', async () => {
    const { fake, network, servers, pass, broken } = await world();
    const agent = ScriptedAgent.greet(network.dialer, hello);
    await pass(200);
    fake.sealFailure = away;
    agent.say(patchOf('p'));
    agent.commit(1000, first);
    await pass(6000);
    expect(fake.listed).toHaveLength(1);
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome', 'stored']);
    expect(fake.calls.filter((call) => call.startsWith('seal')).length).toBeGreaterThan(2);
    fake.sealFailure = null;
    await pass(1500);
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome', 'stored', 'committed']);
    expect(servers.describe()[0]).toMatchObject({ durability: 'object', points: 1 });
    expect(broken).toEqual([]);
  });

  it("does not tell a former session's position before it is sealed", async () => {
    const { fake, network, servers, pass } = await world();
    const agent = ScriptedAgent.greet(network.dialer, hello);
    await pass(200);
    fake.sealFailure = away;
    agent.commit(1000, first);
    await pass(400);
    agent.connection.abort();
    await pass(1500);
    const again = ScriptedAgent.greet(network.dialer, hello);
    await pass(400);
    expect(again.received[0]).toMatchObject({ type: 'refusal', code: 'ERR_OBJECTS_UNAVAILABLE' });
    fake.sealFailure = null;
    const later = ScriptedAgent.greet(network.dialer, hello);
    await pass(400);
    expect(later.received[0]).toMatchObject({ type: 'welcome' });
    expect(fake.listed[0]!.state).toBe('sealed');
    await servers.stop();
  });

  it('tells of a point that was asked for once it is sealed', async () => {
    const { fake, network, servers, pass } = await world();
    const agent = ScriptedAgent.greet(network.dialer, hello);
    await pass(200);
    fake.sealFailure = away;
    const { requestId, committed } = servers.requestPoint('web', 600_000);
    let isTold = false;
    void committed.then(() => {
      isTold = true;
    });
    agent.commit(1000, first, requestId);
    await pass(3000);
    expect(isTold).toBe(false);
    fake.sealFailure = null;
    await pass(1500);
    expect(isTold).toBe(true);
  });

  it('stops the service where a point can never be sealed', async () => {
    const { fake, network, pass, broken } = await world();
    const agent = ScriptedAgent.greet(network.dialer, hello);
    await pass(200);
    fake.sealFailure = new UnderstudyError('ERR_STORE_FAILED', 'fsync failed');
    agent.commit(1000, first);
    await pass(400);
    expect(agent.received.at(-1)).toMatchObject({ type: 'refusal' });
    expect(broken).toEqual([fake.sealFailure]);
  });
});
