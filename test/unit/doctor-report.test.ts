/** The way of a report: from the agent's rounds over the wire to staging, kept there, and to an operator. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ROUND_MS, startRounds } from '../../src/agent/doctor/rounds.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { createLog, silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { MIB } from '../../src/base/units.ts';
import type { MachineReport } from '../../src/model/machine.ts';
import { decodeMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { MAX_FINDINGS } from '../../src/protocol/limits.ts';
import type { Machine } from '../../src/protocol/messages.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import { Machines } from '../../src/staging/machines.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { AgentWorld } from './support/agent-world.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend, fakeMachine } from './support/fake-backend.ts';
import { ScriptedAgent } from './support/scripted-agent.ts';
import { hello, makeWorld, settled, useFolder } from './support/servers-world.ts';

const report = fakeMachine();
const other: MachineReport = { ...report, cpuCount: 9, findings: [] };
const folder = useFolder();

describe('rounds', () => {
  it('look at once and every six hours, and end', async () => {
    const clock = new VirtualClock();
    const times: number[] = [];
    const told: MachineReport[] = [];
    const rounds = startRounds({
      clock,
      log: silentLog,
      look: async (timeMs) => {
        times.push(timeMs - clock.wallMs());
        return { ...report, timeMs };
      },
      tell: (each) => told.push(each),
    });
    await clock.runUntil(2 * ROUND_MS + 1);
    expect(told).toHaveLength(3);
    expect(times).toEqual([0, 0, 0]);
    await rounds.stop();
    await clock.runUntil(9 * ROUND_MS);
    expect(told).toHaveLength(3);
  });

  it('log a look that fails, and look again', async () => {
    const clock = new VirtualClock();
    const lines: string[] = [];
    const told: MachineReport[] = [];
    let looks = 0;
    const rounds = startRounds({
      clock,
      log: createLog({ sink: (line) => lines.push(line) }),
      look: async () => {
        looks += 1;
        if (looks === 1) throw new Error('no such luck');
        return report;
      },
      tell: (each) => told.push(each),
    });
    await clock.runUntil(ROUND_MS + 1);
    expect(lines.join()).toContain('no such luck');
    expect(told).toEqual([report]);
    await rounds.stop();
  });

  it('tell nothing of a look that ends after they were stopped', async () => {
    const looked = Promise.withResolvers<MachineReport>();
    const told: MachineReport[] = [];
    const clock = new VirtualClock();
    const look = () => looked.promise;
    const rounds = startRounds({ clock, log: silentLog, look, tell: (each) => told.push(each) });
    const stopped = rounds.stop();
    looked.resolve(report);
    await stopped;
    expect(told).toEqual([]);
  });
});

describe('the agent', () => {
  it('tells at once where it is connected, and at the begin of each later session', async () => {
    const world = new AgentWorld(1, [{ name: '/dev/a', sizeBytes: MIB }]);
    world.start();
    await world.points(1);
    expect(world.staging.machines).toEqual([]);
    world.agent.tellMachine(report);
    await world.points(2);
    expect(world.staging.machines).toEqual([report]);
    world.agent.tellMachine(other);
    await world.until('told', () => world.staging.machines.length === 2);
    world.network.cut();
    await world.until('told again', () => world.staging.machines.length === 3);
    expect(world.staging.machines.slice(1)).toEqual([other, other]);
  });

  it('that looked before it was connected tells after Welcome, not before', async () => {
    const world = new AgentWorld(2, [{ name: '/dev/a', sizeBytes: MIB }]);
    world.start();
    world.agent.tellMachine(report);
    await world.points(1);
    expect(world.staging.machines).toEqual([report]);
  });
});

describe('the message', () => {
  it('keeps the worst where there are too many findings, and cuts long texts', () => {
    const [first, last] = report.findings;
    const findings = [
      { ...first!, seen: 'ü'.repeat(5000) },
      ...Array.from({ length: MAX_FINDINGS + 5 }, () => last!),
    ];
    const sent: Machine = { type: 'machine', report: { ...report, findings } };
    const read = decodeMessage(encodeMessage(sent)) as Machine;
    expect(read.report.findings).toHaveLength(MAX_FINDINGS);
    expect(read.report.findings[0]!.severity).toBe('blocks-boot');
    expect(read.report.findings[0]!.seen).toBe('ü'.repeat(512));
  });
});

describe('staging', () => {
  const told = (machine: MachineReport) => ({ type: 'machine', report: machine }) as const;

  it('knows the machine at once, keeps it over a restart, and takes the newest', async () => {
    const { servers, network, machines } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    expect(servers.describe()[0]!.machine).toBeNull();
    expect(servers.machine('web')).toBeNull();
    agent.say(told(report));
    agent.say(told(other));
    await settled();
    await machines.settled();
    expect(servers.machine('web')).toEqual(other);
    expect(servers.describe()[0]!.machine).toMatchObject({ cpuCount: 9, counts: { advice: 0 } });
    const again = await Machines.open(nodeDisk, folder.path, silentLog);
    expect(again.get('web')).toEqual(other);
    expect(readdirSync(join(folder.path, 'machines'))).toEqual(['web.json']);
    expect(() => servers.machine('nobody')).toThrow(
      expect.objectContaining({ code: 'ERR_SERVER_NOT_FOUND' }),
    );
  });

  it('ends the session of an agent that tells before Welcome', async () => {
    const { network, servers } = await makeWorld(folder);
    const agent = new ScriptedAgent(network.dialer, (each) => each.say(told(report)));
    expect(await agent.next('refusal')).toMatchObject({ code: 'ERR_PROTOCOL_ORDER' });
    expect(servers.describe()).toEqual([]);
  });

  it('starts with what is damaged left out, and says so', async () => {
    const machines = await Machines.open(nodeDisk, folder.path, silentLog);
    machines.set('a', report);
    machines.set('b', report);
    await machines.settled();
    writeFileSync(join(folder.path, 'machines/a.json'), 'understudy-machine 1 5 00\n{"x":');
    writeFileSync(join(folder.path, 'machines/b.json.new'), 'half');
    const lines: string[] = [];
    const log = createLog({ sink: (line) => lines.push(line) });
    const again = await Machines.open(nodeDisk, folder.path, log);
    expect(again.get('a')).toBeNull();
    expect(again.get('b')).toEqual(report);
    expect(lines.join()).toContain('a.json');
  });

  it('knows what it cannot write down, says so, and writes the next', async () => {
    let isFull = true;
    const disk = {
      ...nodeDisk,
      open: async (path: string, mode: 'read' | 'create' | 'write') => {
        if (isFull) throw new UnderstudyError('ERR_DISK_FULL', 'no room');
        return nodeDisk.open(path, mode);
      },
    };
    const lines: string[] = [];
    const log = createLog({ sink: (line) => lines.push(line) });
    const machines = await Machines.open(disk, folder.path, log);
    machines.set('a', report);
    await machines.settled();
    expect(machines.get('a')).toEqual(report);
    expect(lines.join()).toContain('no room');
    isFull = false;
    machines.set('a', other);
    await machines.settled();
    expect((await Machines.open(nodeDisk, folder.path, silentLog)).get('a')).toEqual(other);
  });

  it('does not confuse a name with the unfinished file of another', async () => {
    const machines = await Machines.open(nodeDisk, folder.path, silentLog);
    for (const name of ['a', 'a.json', 'a.new', 'a.json.new']) machines.set(name, report);
    await machines.settled();
    mkdirSync(join(folder.path, 'machines/sub.json'));
    const again = await Machines.open(nodeDisk, folder.path, silentLog);
    for (const name of ['a', 'a.json', 'a.new', 'a.json.new']) {
      expect(again.get(name)).toEqual(report);
    }
  });
});

describe('server show', () => {
  let api: Server | null = null;
  afterEach(async () => {
    api?.closeAllConnections();
    await new Promise((resolve) => (api === null ? resolve(null) : api.close(resolve)));
    api = null;
  });

  async function show(extra: string[], isKnown = true): Promise<{ code: number; out: string }> {
    const backend = fakeBackend(new Uint8Array(4096));
    const [server] = await backend.servers();
    const known = isKnown ? server! : { ...server!, machine: null };
    api = createServer(createApiHandler({ ...backend, servers: async () => [known] }, 'a-token'));
    await new Promise<void>((resolve) => api!.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
    const tokenFile = join(folder.path, 'token');
    writeFileSync(tokenFile, 'a-token');
    const where = ['--staging', url, '--token-file', tokenFile];
    const { exitCode: code, out } = await runLine(['server', 'show', 'web1', ...where, ...extra]);
    return { code, out };
  }

  it('tells of the machine and of what is grave, and nothing to the terminal', async () => {
    const { code, out } = await show([]);
    expect(code).toBe(0);
    expect(out).toContain('it will not boot elsewhere as it is: blocks-boot 1, advice 1');
    expect(out).toContain('x86_64, 2 processors, 4.00 GiB of memory');
    expect(out).toContain('root-name: /boot/grub/grub.cfg: root=/dev/sda1?[2J');
    expect(out).not.toContain('\u001b');
    expect(out).not.toContain('console-serial');
  });

  it('has all of it in JSON', async () => {
    const { out } = await show(['--json']);
    const { timeMs: _, ...rest } = report;
    expect(JSON.parse(out)).toMatchObject({
      server: 'web1',
      machine: { ...rest, time: '2026-11-20T00:00:00.000Z', counts: { 'blocks-boot': 1 } },
    });
  });

  it('shows a server whose agent has not told', async () => {
    const { code, out } = await show([], false);
    expect(code).toBe(0);
    expect(out).not.toContain('doctor');
    expect(JSON.parse((await show(['--json'], false)).out)).toMatchObject({ machine: null });
  });
});

describe('the API', () => {
  it('says that a machine is not known', async () => {
    const backend = { ...fakeBackend(new Uint8Array(4096)), machine: () => null };
    const api = createServer(createApiHandler(backend, 't'));
    await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(api.address() as AddressInfo).port}/v1/servers/web1/machine`;
    const answer = await fetch(url, { headers: { authorization: 'Bearer t' } });
    expect(await answer.json()).toMatchObject({ error: { code: 'ERR_MACHINE_UNKNOWN' } });
    expect(answer.status).toBe(404);
    api.closeAllConnections();
    await new Promise((resolve) => api.close(resolve));
  });
});
