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
  /** However long the machine takes; heartbeats must not run out meanwhile. */
  const until = async (isReached: () => boolean) => {
    for (let tries = 0; !isReached() && tries < 300; tries += 1) await pass(200);
    expect(isReached()).toBe(true);
  };
  const greet = async (): Promise<ScriptedAgent> => {
    const agent = ScriptedAgent.greet(made.network.dialer, hello);
    await until(() => agent.received.length > 0);
    return agent;
  };
  return { ...made, clock, pass, until, greet };
}

describe('durability object', () => {
  it('acknowledges a commit once its point is sealed, however long that takes', async () => {
    const { fake, servers, pass, until, greet, broken } = await world();
    const agent = await greet();
    fake.sealFailure = away;
    agent.say(patchOf('p'));
    agent.commit(1000, first);
    await until(() => fake.listed.length === 1);
    await pass(6000);
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome', 'stored']);
    expect(fake.calls.filter((call) => call.startsWith('seal')).length).toBeGreaterThan(2);
    fake.sealFailure = null;
    await until(() => agent.received.length === 3);
    expect(agent.received.map(({ type }) => type)).toEqual(['welcome', 'stored', 'committed']);
    expect(servers.describe()[0]).toMatchObject({ durability: 'object', points: 1 });
    expect(broken).toEqual([]);
  });

  it("does not tell a former session's position before it is sealed", async () => {
    const { fake, servers, until, greet } = await world();
    const agent = await greet();
    fake.sealFailure = away;
    agent.commit(1000, first);
    await until(() => fake.listed.length === 1);
    agent.connection.abort();
    await until(() => servers.describe()[0]?.connected === false);
    const again = await greet();
    expect(again.received[0]).toMatchObject({ type: 'refusal', code: 'ERR_OBJECTS_UNAVAILABLE' });
    fake.sealFailure = null;
    const later = await greet();
    expect(later.received[0]).toMatchObject({ type: 'welcome' });
    expect(fake.listed[0]!.state).toBe('sealed');
    await servers.stop();
  });

  it('nor where the clock of its machine was set back meanwhile', async () => {
    const { fake, servers, until, greet } = await world();
    const agent = await greet();
    agent.commit(9000, first);
    await until(() => fake.listed[0]?.state === 'sealed');
    fake.sealFailure = away;
    agent.commit(1000, [{ ...first[0]!, epoch: 2 }]);
    await until(() => fake.listed.length === 2);
    agent.connection.abort();
    await until(() => servers.describe()[0]?.connected === false);
    expect((await greet()).received[0]).toMatchObject({ code: 'ERR_OBJECTS_UNAVAILABLE' });
    await servers.stop();
  });

  it('tells of a point that was asked for once it is sealed', async () => {
    const { fake, servers, pass, until, greet } = await world();
    const agent = await greet();
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
    await until(() => isTold);
  });

  it('stops the service where a point can never be sealed', async () => {
    const { fake, until, greet, broken } = await world();
    const agent = await greet();
    fake.sealFailure = new UnderstudyError('ERR_STORE_FAILED', 'fsync failed');
    agent.commit(1000, first);
    await until(() => agent.received.at(-1)?.type === 'refusal');
    expect(broken).toEqual([fake.sealFailure]);
  });
});
