/** The watch over a machine, with a process in QEMU's place and control and serial sockets that tests hold. */
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import type { CheckResult, Launch } from '../../../src/recovery/launcher.ts';
import { vmPaths } from '../../../src/recovery/qemu/command.ts';
import { imageServerPaths } from '../../../src/recovery/qemu/image-server.ts';
import { Qmp } from '../../../src/recovery/qemu/qmp.ts';
import { Watch } from '../../../src/recovery/qemu/watch.ts';
import type { LaunchKind, LaunchOptions } from '../../../src/recovery/runner.ts';
import { fakePoint } from './fake-backend.ts';
import { shortFolder } from './short-folder.ts';

/** Cuts each connection at `cutAt`; answers all else. */
class ControlSocket {
  cutAt = '';
  connections = 0;
  readonly asked: string[] = [];
  readonly answers: Record<string, unknown> = {
    'query-status': { status: 'running' },
    'query-block-jobs': [],
  };
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
        socket.write(`${JSON.stringify({ return: this.answers[execute] ?? {} })}\n`);
      }
    });
  }
}

export class WatchWorld {
  readonly folder = shortFolder('uwatch-');
  readonly machine: ChildProcess;
  readonly socket: ControlSocket;
  readonly said: string[] = [];
  readonly phases: string[] = [];
  check: CheckResult | null = null;
  notes: LaunchOptions = {};
  isFull = false;
  /** By so much the wall has leapt: the time of a check is over when the test says so. */
  leapMs = 0;

  private readonly clock: Clock;

  /** `speed`: its time goes so many times faster; the wall's does not. */
  constructor(speed = 1) {
    this.clock = {
      ...systemClock,
      wallMs: () => systemClock.wallMs() + this.leapMs,
      monotonicMs: () => systemClock.monotonicMs() * speed,
      after: (ms, run) => systemClock.after(ms / speed, run),
    };
    mkdirSync(join(this.folder, 'run'));
    const { pidfile, qmp } = vmPaths(this.runFolder);
    // The folder is what its command line is known by.
    this.machine = spawn('sh', ['-c', 'sleep 60 & wait', this.runFolder], { stdio: 'ignore' });
    writeFileSync(pidfile, String(this.machine.pid));
    for (const [index] of fakePoint('p').volumes.entries()) {
      const path = imageServerPaths(this.runFolder, index).pidfile;
      writeFileSync(path, String(this.machine.pid));
    }
    this.socket = new ControlSocket(qmp);
  }

  get runFolder(): string {
    return join(this.folder, 'run');
  }
  get consolePath(): string {
    return join(this.folder, 'console.log');
  }

  close(): void {
    this.machine.kill('SIGKILL');
    this.socket.server.close();
    rmSync(this.folder, { recursive: true });
  }

  /** In order, as after a guest's shutdown. */
  end(): void {
    rmSync(vmPaths(this.runFolder).pidfile);
    this.machine.kill('SIGKILL');
  }

  /** As QEMU does, whoever listens. */
  print(text: string): void {
    appendFileSync(this.consolePath, text);
  }
  console(): string {
    return readFileSync(this.consolePath, 'utf8');
  }

  async watch(
    kind: LaunchKind,
    options: LaunchOptions,
    leave = new AbortController().signal,
  ): Promise<Watch> {
    const qmp = await Qmp.connect(vmPaths(this.runFolder).qmp, systemClock);
    const vm = { qmp, startedMs: systemClock.wallMs(), probePort: 1 };
    const choose = () => Promise.reject(new Error());
    const means = { choose, preparation: null, probeKeys: this.folder };
    return new Watch(vm, this.launchOf(kind, options, leave), means);
  }

  private async write(change: () => void): Promise<void> {
    if (this.isFull) throw new UnderstudyError('ERR_DISK_FULL', 'no room');
    change();
  }

  private launchOf(kind: LaunchKind, options: LaunchOptions, leave: AbortSignal): Launch {
    const { folder, runFolder, notes } = this;
    const launch: Partial<Launch> = {
      ...{ jobId: 'j', kind, folder, runFolder, notes, clock: this.clock },
      ...{ point: fakePoint('p'), options, stop: new AbortController().signal, leave },
      ...{ workFolder: folder, productFolder: folder },
      say: (line) => void this.said.push(line),
      phase: (phase) => this.write(() => void this.phases.push(phase)),
      progress: () => undefined,
      damage: () => [],
      making: async () => undefined,
      imageAddress: async (volume) => {
        throw new UnderstudyError('ERR_LISTEN', `no way to ${volume}`);
      },
      remember: (changed) =>
        this.write(() => {
          this.notes = { ...this.notes, ...changed };
        }),
      checked: (result) =>
        this.write(() => {
          this.check = result;
        }),
    };
    return launch as Launch;
  }
}
