/** Who may be a server: every step of a lineage, and that a clone that is refused disturbs nobody. */
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import {
  admit,
  admitInstance,
  admitPending,
  askToFinish,
  beginFailback,
  cancelFailback,
  type FailbackPhase,
  failbackPhases,
  fence,
  type Holder,
  noteWritten,
} from '../../src/staging/lineage-state.ts';
import { withJobs } from '../../src/staging/machine-jobs.ts';
import { Register } from '../../src/staging/register.ts';
import { createMemoryNetwork } from './support/memory-transport.ts';
import { helloOf, ScriptedAgent } from './support/scripted-agent.ts';
import {
  first,
  hello,
  makeWorld,
  patchOf,
  settled,
  useFolder,
  volumes,
} from './support/servers-world.ts';

const now = '2026-11-21T10:00:00.000Z';
const at = (newestPoint: string | null) => ({ now, newestPoint });
const machine = (hardwareId: string, ...words: string[]) => ({ hardwareId, words });
const start: Holder = { server: 'web', hardwareId: 'old', pendingHardwareId: null };
const report = { time: now, chunks: 4, different: 1, writtenBytes: 65_536 };

const admitting = beginFailback(start, 'j1', ['uuid-i']);
const replicating = admitInstance(
  admitting,
  'j1',
  { hardwareId: 'instance', volumes: ['root'] },
  at('p1'),
);
const finishing = askToFinish(replicating, 'j1');
const fenced = fence(finishing, 'j1', 'p9');
const writtenHome = (holder: Holder, point = 'p9', words = ['uuid-home']) =>
  noteWritten(
    holder,
    'j1',
    { volume: 'root', report: { ...report, point }, words },
    ['root'],
    at('p9'),
  );
const done = writtenHome(fenced);
const cancelled = cancelFailback(fenced, 'j1', at('p9'));
const byPhase: Record<FailbackPhase, Holder> = {
  ...{ admitting, replicating, finishing, fenced, done, cancelled },
};
const kindOf = (known: Holder, who: ReturnType<typeof machine>) =>
  admit(known, 'web', who, at('p')).kind;

describe('a name', () => {
  it('is given to the first machine, and to no other', () => {
    expect(admit(undefined, 'web', machine('old'), at(null))).toEqual({
      kind: 'admitted',
      holder: { ...start, since: now, fromPoint: null },
    });
    expect(admit(start, 'web', machine('old'), at('p'))).toEqual({
      kind: 'admitted',
      holder: null,
    });
    expect(admit(start, 'web', machine('x'), at('p'))).toMatchObject({
      kind: 'refused',
      holder: { hardwareId: 'old', pendingHardwareId: 'x' },
    });
  });

  it('is taken over by a machine that waits, and the former one is remembered', () => {
    expect(admitPending(start, 'x', [], at('p1'))).toBeNull();
    expect(admitPending(start, '', [''], at('p1'))).toBeNull();
    const taken = admitPending(start, 'x', ['x'], at('p1'));
    expect(taken).toEqual({
      ...{ server: 'web', hardwareId: 'x', pendingHardwareId: null, since: now, fromPoint: 'p1' },
      former: [{ hardwareId: 'old', since: '', until: now, lastPoint: 'p1' }],
    });
    const pending = { ...replicating, pendingHardwareId: 'x' };
    expect(() => admitPending(pending, 'x', [], at('p'))).toThrow(/under way/);
  });

  it.each([
    // phase, original, instance, the rescue's machine, a stranger
    ['admitting', 'admitted', 'refused', 'refused', 'refused'],
    ['replicating', 'refused', 'admitted', 'refused', 'refused'],
    ['finishing', 'refused', 'admitted', 'refused', 'refused'],
    ['fenced', 'refused', 'refused', 'refused', 'refused'],
    ['done', 'admitted', 'refused', 'admitted', 'refused'],
    ['cancelled', 'admitted', 'refused', 'refused', 'refused'],
  ] as const)('while a failback is %s: original %s, instance %s', (phase, ...kinds) => {
    const known = byPhase[phase];
    const who = [
      ...[machine('old'), machine('instance', 'uuid-home'), machine('new', 'uuid-home')],
      machine('x', 'uuid-x'),
    ];
    expect(who.map((each) => kindOf(known, each))).toEqual(kinds);
  });

  it('is told why it is not given', () => {
    const why = (known: Holder, hardwareId: string) => {
      const admission = admit(known, 'web', machine(hardwareId), at('p'));
      return admission.kind === 'refused' ? admission.why : '';
    };
    expect(why(fenced, 'instance')).toMatch(/switched over: point p9/);
    expect(why(done, 'instance')).toMatch(/can be switched off/);
    expect(why(start, 'x')).toMatch(/another machine/);
  });
});

describe('a failback', () => {
  it('holds on to where the lineages part', () => {
    expect(replicating).toMatchObject({ hardwareId: 'instance', fromPoint: 'p1' });
    expect(replicating.failback).toMatchObject({ original: 'old', fromPoint: 'p1' });
    expect(done).toMatchObject({ hardwareId: 'old', failback: { phase: 'done', lastPoint: 'p9' } });
    expect(done.former?.map(({ hardwareId }) => hardwareId)).toEqual(['old', 'instance']);
    expect(cancelled).toMatchObject({ hardwareId: 'old', failback: { phase: 'cancelled' } });
  });

  it('takes each step in its place alone', () => {
    const steps: Record<string, readonly [(known: Holder) => Holder, readonly FailbackPhase[]]> = {
      admit: [
        (known) => admitInstance(known, 'j1', { hardwareId: 'i2', volumes: [] }, at('p')),
        ['admitting'],
      ],
      finish: [(known) => askToFinish(known, 'j1'), ['replicating', 'finishing', 'fenced']],
      old: [(known) => admitInstance(known, 'j1', { hardwareId: 'old', volumes: [] }, at('p')), []],
      fence: [(known) => fence(known, 'j1', 'p'), ['finishing']],
      written: [writtenHome, ['replicating', 'finishing', 'fenced', 'done']],
      another: [(known) => beginFailback(known, 'j2', []), ['done', 'cancelled']],
    };
    for (const [name, [step, allowed]] of Object.entries(steps)) {
      for (const phase of failbackPhases) {
        const tried = () => step(byPhase[phase]);
        if (allowed.includes(phase)) expect(tried, `${name} ${phase}`).not.toThrow();
        else expect(tried, `${name} ${phase}`).toThrow(/failback|already/);
      }
    }
    expect(() => fence(finishing, 'j2', 'p')).toThrow(/j2 is not/);
    expect(() => steps.old![0](admitting)).toThrow(/already/);
  });

  it('may be asked for each step twice', () => {
    expect(beginFailback(admitting, 'j1', [])).toBe(admitting);
    expect(askToFinish(finishing, 'j1')).toBe(finishing);
    expect(askToFinish(finishing, 'j1', true).failback?.acceptsNewest).toBe(true);
    expect(askToFinish(fenced, 'j1', true)).toBe(fenced);
    expect(writtenHome(done)).toBe(done);
    expect(cancelFailback(cancelled, 'j1', at('p'))).toBe(cancelled);
    expect(cancelFailback(done, 'j1', at('p'))).toBe(done);
  });

  it('is done when every volume was written home at the last point, after the fence', () => {
    expect(writtenHome(replicating, 'p2').failback?.phase).toBe('replicating');
    expect(writtenHome(fenced, 'p8').failback?.phase).toBe('fenced');
    const of = (known: Holder, volume: string) =>
      noteWritten(
        known,
        'j1',
        { volume, report: { ...report, point: 'p9' }, words: [] },
        ['root', 'data'],
        at('p9'),
      );
    const one = of(fenced, 'data');
    expect(one.failback?.phase).toBe('fenced');
    expect(of(one, 'root').failback?.phase).toBe('done');
  });

  it('that is cancelled before an instance came leaves the name where it is', () => {
    const none = cancelFailback(admitting, 'j1', at('p'));
    expect(none).toMatchObject({ hardwareId: 'old', failback: { phase: 'cancelled' } });
    expect(none.former).toBeUndefined();
  });
});

const folder = useFolder();
const clone = helloOf('web', volumes, 'clone');

describe('a clone', () => {
  it('that is refused, and whatever it says, leaves session, points and generation as they are', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    agent.say(patchOf('p'));
    await agent.next('stored');
    const before = { calls: [...fake.calls], described: servers.describe()[0]! };
    const other = helloOf('web', [{ ...volumes[0]!, generation: 'cd'.repeat(16) }], 'clone');
    for (let i = 0; i < 3; i += 1) {
      const refused = ScriptedAgent.greet(network.dialer, other);
      expect(await refused.refusal()).toBe('ERR_OTHER_HARDWARE');
      const hasty = ScriptedAgent.greet(network.dialer, other);
      hasty.say(patchOf('evil'));
      hasty.commit(2000, first);
      expect(await hasty.refusal()).toMatch(/ERR_OTHER_HARDWARE|ERR_PROTOCOL_ORDER/);
    }
    await settled();
    const { refused, pendingHardwareId, ...after } = servers.describe()[0]!;
    expect(fake.calls).toEqual(before.calls);
    const { refused: _none, pendingHardwareId: _no, ...was } = before.described;
    expect({ ...after, lagMs: 0 }).toEqual({ ...was, lagMs: 0 });
    expect(pendingHardwareId).toBe('clone');
    expect(refused).toMatchObject([{ hardwareId: 'clone', job: null }]);
    agent.commit(1000, first);
    await agent.next('committed');
    await servers.stop();
  });

  it('is refused while the source is away, and after a restart, too', async () => {
    const before = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(before.network.dialer, hello);
    agent.commit(1000, first);
    await agent.next('committed');
    agent.connection.abort();
    await expect.poll(() => before.servers.describe()[0]!.connected).toBe(false);
    const greet = (net: typeof before.network) => ScriptedAgent.greet(net.dialer, clone).refusal();
    expect(await greet(before.network)).toBe('ERR_OTHER_HARDWARE');
    await before.servers.stop();
    const { network, servers, register, fake } = await makeWorld(folder, systemClock, before.fake);
    expect(await greet(network)).toBe('ERR_OTHER_HARDWARE');
    expect(fake.listed.length).toBe(1);
    expect(register.get('web')).toMatchObject({
      hardwareId: 'hardware',
      pendingHardwareId: 'clone',
    });
    await servers.stop();
  });

  it('of two that wait either may be let in, though the other came last', async () => {
    const { network, servers, register } = await makeWorld(folder);
    await ScriptedAgent.connect(network.dialer, hello);
    for (const name of ['clone', 'drill']) {
      await ScriptedAgent.greet(network.dialer, helloOf('web', volumes, name)).refusal();
    }
    await servers.admit('web', 'clone');
    expect(register.get('web')).toMatchObject({ hardwareId: 'clone', pendingHardwareId: null });
    expect(servers.describe()[0]!.refused.map(({ hardwareId }) => hardwareId)).toEqual(['drill']);
    await servers.stop();
  });
});

describe('a machine that was refused', () => {
  it('is known as that of a job by what it says of itself', async () => {
    const { network, servers } = await makeWorld(folder);
    await ScriptedAgent.connect(network.dialer, hello);
    const far = createMemoryNetwork(systemClock);
    far.listen((connect) => servers.accept(connect, ['0a1b-uuid', 'i-0123']));
    await ScriptedAgent.greet(far.dialer, clone).refusal();
    await ScriptedAgent.greet(network.dialer, helloOf('web', volumes, 'other')).refusal();
    const jobs = [
      { id: 'none', access: null },
      { id: 'drill', access: { serial: 'socat', uuid: '0A1B-UUID' } },
    ];
    const [shown] = servers.describe().map(withJobs(jobs));
    expect(shown!.refused.map(({ hardwareId, job }) => [hardwareId, job])).toEqual([
      ['clone', 'drill'],
      ['other', null],
    ]);
    const [byInstance] = servers
      .describe()
      .map(withJobs([{ id: 'ec2', access: { id: 'i-0123' } }]));
    expect(byInstance!.refused[0]!.job).toBe('ec2');
    await servers.stop();
  });
});

describe('a server whose machine is being changed', () => {
  it('lets nobody in meanwhile, and has given back its session', async () => {
    const { network, servers, fake } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    const open = await servers.shut('web');
    expect(fake.calls.at(-1)).toBe('close');
    expect(await agent.refusal()).toBe('ERR_SESSION_REPLACED');
    const early = ScriptedAgent.greet(network.dialer, hello);
    expect(await early.refusal()).toBe('ERR_SESSION_REPLACED');
    open();
    open();
    await ScriptedAgent.connect(network.dialer, hello);
    await servers.stop();
  });
});

describe('the register', () => {
  it('takes steps one after the other, each on what the one before has left', async () => {
    const register = await Register.open(nodeDisk, folder.path);
    await expect(register.update('web', (known) => known)).rejects.toThrow(/web/);
    await register.set(start);
    const add = (known: Holder) => ({ ...known, hardwareId: `${known.hardwareId}+` });
    await Promise.all([1, 2, 3].map(() => register.update('web', add)));
    const broken = register.update('web', () => {
      throw new Error('no');
    });
    await expect(broken).rejects.toThrow('no');
    await register.update('web', add);
    expect((await Register.open(nodeDisk, folder.path)).get('web')?.hardwareId).toBe('old++++');
  });
});
