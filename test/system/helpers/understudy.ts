/**
 * The program as its users run it: commands, and the two long-running ones as processes of their own.
 * TEST_MAIN names what to run; without it, the sources.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { DEFAULT_RUN_DIRECTORY, socketPath } from '../../../src/agent/status-socket.ts';
import type { RecoveryPoint } from '../../../src/model/replication.ts';
import type { ApiServer } from '../../../src/staging/api-types.ts';
import { runFolderOf } from '../../../src/staging/jobs/image-door.ts';
import type { ListedPoint } from '../../../src/store/types.ts';
import type { Scratch } from './scratch.ts';
import { waitFor } from './wait.ts';

const main = process.env.TEST_MAIN ?? resolve(import.meta.dirname, '../../../src/cli/main.ts');

const COMMAND_TIMEOUT_MS = 180_000;

export interface Ran {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

type Environment = Record<string, string | undefined>;

/** Runs one command to its end. `wrap` is put before it: ['unshare', '-m', ...]. */
export function understudy(
  words: readonly string[],
  environment: Environment = {},
  wrap: readonly string[] = [],
): Promise<Ran> {
  const [command, ...rest] = [...wrap, process.execPath, main, ...words];
  return new Promise((done, fail) => {
    const child = spawn(command!, rest, {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (data: Buffer) => {
      out += data.toString();
    });
    child.stderr.on('data', (data: Buffer) => {
      err += data.toString();
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), COMMAND_TIMEOUT_MS);
    child.on('error', fail);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      done({ exitCode: code ?? (signal ? 128 : 1), out, err });
    });
  });
}

/** A long-running command: its output goes to files in the scratch, and it dies with the scratch. */
export class Daemon {
  readonly child: ChildProcess;
  private readonly outPath: string;
  private readonly errPath: string;
  private ended: Promise<number | null>;

  constructor(
    scratch: Scratch,
    name: string,
    words: readonly string[],
    options: DaemonOptions = {},
  ) {
    this.outPath = scratch.path(`${name}.out`);
    this.errPath = scratch.path(`${name}.err`);
    const out = openSync(this.outPath, 'w');
    const err = openSync(this.errPath, 'w');
    const [command, ...rest] = [...(options.wrap ?? []), process.execPath, main, ...words];
    this.child = spawn(command!, rest, {
      // As the programs that start it do (scripts/understudy, scripts/package).
      env: { MALLOC_ARENA_MAX: '2', ...process.env, ...options.environment },
      stdio: ['ignore', out, err],
    });
    closeSync(out);
    closeSync(err);
    this.ended = new Promise((done) => {
      this.child.on('error', () => done(null));
      this.child.on('close', (code) => done(code));
    });
    scratch.defer(() => this.kill());
  }

  get output(): string {
    return readFileSync(this.outPath, 'utf8');
  }
  get errors(): string {
    return readFileSync(this.errPath, 'utf8');
  }
  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }
  get pid(): number {
    return this.child.pid!;
  }

  /** Exit code, or null where a signal ended it. */
  async exit(): Promise<number | null> {
    return this.ended;
  }
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(signal);
    return this.ended;
  }
  async kill(): Promise<void> {
    await this.stop('SIGKILL');
  }
  /** Largest resident set so far, in bytes. */
  peakMemoryBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  }
}

export interface DaemonOptions {
  readonly wrap?: readonly string[];
  readonly environment?: Environment;
}

/** A staging service on a folder, and the operator's view of it. */
export class Staging {
  readonly daemon: Daemon;
  readonly dataFolder: string;
  url = '';

  private readonly authority: string | undefined;

  private constructor(daemon: Daemon, dataFolder: string, authority?: string) {
    this.daemon = daemon;
    this.dataFolder = dataFolder;
    this.authority = authority;
  }

  static async start(scratch: Scratch, options: StagingOptions = {}): Promise<Staging> {
    const folder = options.dataFolder ?? scratch.path('data');
    const listen = options.listen ?? '127.0.0.1:0';
    const name = `staging-${Staging.started++}`;
    const words = [
      'staging',
      'run',
      '--data',
      folder,
      '--listen',
      listen,
      ...(options.words ?? []),
    ];
    // As above; what runs on in it was ended before.
    scratch.defer(() => rmSync(runFolderOf(folder), { recursive: true, force: true }));
    const daemon = new Daemon(scratch, name, words, options);
    const staging = new Staging(daemon, folder, options.authority);
    await waitFor(
      'the ready line of staging',
      () => /https?:\/\/\S+/.test(daemon.output) || !daemon.isRunning,
      { timeoutMs: 120_000 },
    );
    const url = /https?:\/\/[^\s"]+/.exec(daemon.output)?.[0];
    if (url === undefined) throw new Error(`staging did not start: ${daemon.errors}`);
    staging.url = url;
    return staging;
  }
  private static started = 0;

  get tokenFile(): string {
    return join(this.dataFolder, 'token');
  }
  get environment(): Environment {
    return {
      UNDERSTUDY_STAGING: this.url,
      UNDERSTUDY_TOKEN_FILE: this.tokenFile,
      ...(this.authority === undefined ? {} : { UNDERSTUDY_CA: this.authority }),
    };
  }
  get port(): number {
    return Number(new URL(this.url).port);
  }

  run(...words: string[]): Promise<Ran> {
    return understudy(words, this.environment);
  }
  /** The parsed output of a command with --json; throws where it fails. */
  async json<Answer>(...words: string[]): Promise<Answer> {
    const { exitCode, out, err } = await this.run(...words, '--json');
    if (exitCode !== 0) throw new Error(`${words.join(' ')}: exit ${exitCode}: ${err}`);
    return JSON.parse(out) as Answer;
  }
  /** Newest first. */
  points(...words: string[]): Promise<ListedPoint[]> {
    return this.json('point', 'list', '--limit', '10000', ...words);
  }
  server(name: string): Promise<ApiServer> {
    return this.json('server', 'show', name);
  }
  /** Of a server whose agent may be on its way back. */
  async createPoint(server: string): Promise<RecoveryPoint> {
    const isConnected = async () => (await this.server(server)).connected;
    await waitFor(`the agent of ${server}`, isConnected, { timeoutMs: 120_000, everyMs: 300 });
    return this.json('point', 'create', '--server', server, '--wait', '--timeout', '120s');
  }
  async export(point: string, volume: string, out: string, ...words: string[]): Promise<void> {
    const line = ['image', 'export', '--point', point, '--volume', volume, '--out', out, ...words];
    const { exitCode, err } = await this.run(...line);
    if (exitCode !== 0) throw new Error(`export: exit ${exitCode}: ${err}`);
  }
  /** Of all points, partial ones too. */
  async newest(): Promise<ListedPoint | undefined> {
    return (await this.json<ListedPoint[]>('point', 'list', '--limit', '1'))[0];
  }
  /** Waits until at least `count` whole points are listed; returns those, newest first. */
  async waitForPoints(
    count: number,
    timeoutMs = 120_000,
    ...words: string[]
  ): Promise<ListedPoint[]> {
    let points: ListedPoint[] = [];
    await waitFor(
      `${count} points`,
      async () => {
        const listed = await this.points(...words);
        points = listed.filter((point) => point.missingVolumes.length === 0);
        return points.length >= count;
      },
      { timeoutMs, everyMs: 300 },
    );
    return points;
  }
}

export interface StagingOptions extends DaemonOptions {
  /** For operators: the certificate of a service with TLS. */
  readonly authority?: string;
  readonly dataFolder?: string;
  readonly listen?: string;
  readonly words?: readonly string[];
}

export interface AgentOptions extends DaemonOptions {
  readonly volumes: readonly string[];
  readonly server?: string;
  readonly url?: string;
  readonly cutInterval?: string;
  readonly words?: readonly string[];
}

/** Takes the tracker of a server's agent out of the kernel. */
export async function detachAgent(server: string): Promise<void> {
  const { exitCode, err } = await understudy(['agent', 'detach', '--server', server, '--yes']);
  if (exitCode !== 0) throw new Error(`agent detach: exit ${exitCode}: ${err}`);
}

let agentsStarted = 0;

/** Starts an agent. Its trackers are taken away with the scratch, once it has died. */
export function startAgent(scratch: Scratch, staging: Staging, options: AgentOptions): Daemon {
  const server = options.server ?? scratch.server;
  // For scripts/test, should this run be killed: whose pins are to be taken away.
  appendFileSync(scratch.path('tracked-servers'), `${server}\n`);
  scratch.defer(async () => {
    await detachAgent(server);
    // One that was killed has left it.
    rmSync(socketPath(DEFAULT_RUN_DIRECTORY, server), { force: true });
  });
  const words = [
    ...['agent', 'run', '--staging', options.url ?? staging.url, '--token-file', staging.tokenFile],
    ...['--server', server, '--cut-interval', options.cutInterval ?? '1s'],
    ...['--volume', ...options.volumes, ...(options.words ?? [])],
  ];
  agentsStarted += 1;
  return new Daemon(scratch, `agent-${agentsStarted}`, words, options);
}
