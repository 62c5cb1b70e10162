/** The watch over a running machine, with a process in QEMU's place and a control socket that breaks. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import type { CheckResult, Launch } from '../../src/recovery/launcher.ts';
import { vmPaths } from '../../src/recovery/qemu/command.ts';
import { imageServerPaths } from '../../src/recovery/qemu/image-server.ts';
import { Qmp } from '../../src/recovery/qemu/qmp.ts';
import { Watch } from '../../src/recovery/qemu/watch.ts';
import type { LaunchKind, LaunchOptions } from '../../src/recovery/runner.ts';
import { fakePoint } from './support/fake-backend.ts';

/** Cuts each connection at `cutAt`; answers all else. */
class BreakingSocket {
  cutAt = '';
  connections = 0;
  readonly asked: string[] = [];
  readonly server: Server;

  constructor(path: string) {
    this.server = createServer((socket) => this.serve(socket)).listen(path);
  }

  private serve(socket: Socket): void {
    this.connections += 1;
    socket.on('error', () => undefined);
    socket.write('{"QMP":{}}\n');
    socket.on('data', (data) => {
      for (const line of data.toString().trim().split('\n')) {
        const { execute } = JSON.parse(line) as { execute: string };
        this.asked.push(execute);
        if (execute === this.cutAt) return void socket.destroy();
        socket.write(`${JSON.stringify({ return: answers[execute] ?? {} })}\n`);
      }
    });
  }
}
const answers: Record<string, unknown> = {
  'query-status': { status: 'running' },
  'query-block-jobs': [],
};

let folder: string;
let machine: ChildProcess;
let socket: BreakingSocket;
let said: string[];
let phases: string[];
let check: CheckResult | null;
let isFull: boolean;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'uwatch-'));
  mkdirSync(join(folder, 'run'));
  const { pidfile, qmp } = vmPaths(join(folder, 'run'));
  // The folder is what its command line is known by.
  machine = spawn('sh', ['-c', 'sleep 60 & wait', join(folder, 'run')], { stdio: 'ignore' });
  writeFileSync(pidfile, String(machine.pid));
  for (const [index] of fakePoint('p').volumes.entries()) {
    writeFileSync(imageServerPaths(join(folder, 'run'), index).pidfile, String(machine.pid));
  }
  socket = new BreakingSocket(qmp);
  [said, phases, check, isFull] = [[], [], null, false];
});
afterEach(() => {
  machine.kill('SIGKILL');
  socket.server.close();
  rmSync(folder, { recursive: true });
});

const stop = () => new AbortController();

function launchOf(kind: LaunchKind, options: LaunchOptions, leave: AbortSignal): Launch {
  const write = async (change: () => void) => {
    if (isFull) throw new UnderstudyError('ERR_DISK_FULL', 'no room');
    change();
  };
  const launch: Partial<Launch> = {
    ...{ jobId: 'j', kind, folder, runFolder: join(folder, 'run'), notes: {}, clock: systemClock },
    ...{ point: fakePoint('p'), options, stop: stop().signal, leave },
    ...{ workFolder: folder, productFolder: folder },
    say: (line) => void said.push(line),
    phase: (phase) => write(() => void phases.push(phase)),
    progress: () => undefined,
    making: async () => undefined,
    imageAddress: async (volume) => {
      throw new UnderstudyError('ERR_LISTEN', `no way to ${volume}`);
    },
    remember: () => write(() => undefined),
    checked: (result) =>
      write(() => {
        check = result;
      }),
  };
  return launch as Launch;
}

async function watchOf(kind: LaunchKind, options: LaunchOptions, leave = stop().signal) {
  const qmp = await Qmp.connect(vmPaths(join(folder, 'run')).qmp, systemClock);
  const vm = { qmp, startedMs: systemClock.wallMs(), probePort: 1 };
  const means = { choose: () => Promise.reject(new Error()), preparation: null, probeKeys: null };
  return new Watch(vm, launchOf(kind, options, leave), means);
}
const until = (isSo: () => boolean) => expect.poll(isSo, { timeout: 20_000 }).toBe(true);

describe('a failover', () => {
  it('is watched on by another connection where the control socket breaks, until it ends by itself', async () => {
    const watch = await watchOf('failover', { standAlone: true });
    socket.cutAt = 'query-block-jobs';
    const ended = watch.untilEnd();
    await until(() => socket.connections > 2);
    expect(said.filter((line) => line.includes('QEMU has ended'))).toHaveLength(1);
    socket.cutAt = '';
    await until(() => socket.asked.includes('block-stream'));
    machine.kill('SIGKILL');
    expect(await ended).toBe('done');
    expect(said.at(-1)).toBe('the virtual machine has ended by itself');
    watch.close();
  });

  it('has an image server that ended started again, and is watched on where that fails', async () => {
    const watch = await watchOf('failover', {});
    writeFileSync(imageServerPaths(join(folder, 'run'), 0).pidfile, '');
    const ended = watch.untilEnd();
    await until(() => said.some((line) => line.includes('no way to')));
    machine.kill('SIGKILL');
    expect(await ended).toBe('done');
  });

  it('goes on where nothing can be written down, and where its check fails', async () => {
    isFull = true;
    const leave = stop();
    const options = { check: true, probe: 'tcp:22', timeoutMs: 1500 };
    const watch = await watchOf('failover', options, leave.signal);
    socket.cutAt = 'human-monitor-command';
    const ended = watch.untilEnd();
    await until(() => said.some((line) => line.startsWith('check failed')));
    expect(said.join('\n')).toMatch(/not written down: no room/);
    isFull = false;
    leave.abort();
    expect(await ended).toBe('left');
    expect(machine.exitCode).toBe(null);
    watch.close();
  });

  it('tells a check that has failed, and is up', async () => {
    const leave = stop();
    writeFileSync(join(folder, 'console.log'), 'Kernel panic - not syncing: VFS\n');
    const watch = await watchOf('failover', { check: true, timeoutMs: 60_000 }, leave.signal);
    const ended = watch.untilEnd();
    await until(() => phases.at(-1) === 'up');
    expect(check).toMatchObject({ passed: false, detail: expect.stringContaining('panic') });
    leave.abort();
    expect(await ended).toBe('left');
    watch.close();
  });
});

it('a drill whose control socket breaks, or whose check fails, has failed', async () => {
  const copying = await watchOf('drill', { standAlone: true });
  socket.cutAt = 'query-block-jobs';
  await expect(copying.untilEnd()).rejects.toMatchObject({ code: 'ERR_LAUNCH_FAILED' });
  copying.close();
  writeFileSync(join(folder, 'console.log'), 'Kernel panic - not syncing: VFS\n');
  const checked = await watchOf('drill', { check: true, timeoutMs: 60_000 });
  await expect(checked.untilEnd()).rejects.toMatchObject({ code: 'ERR_BOOT_CHECK' });
  checked.close();
});
