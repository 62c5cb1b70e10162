/**
 * The agent as a daemon's body: opens volumes, tracker, engine, threads, network and status socket, and
 * sets the core going. The only file of this layer that names real ones. Parses no command line and
 * handles no signal: the CLI does.
 */
import { type Clock, systemClock } from '../base/clock.ts';
import type { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { tuneHeap } from '../base/memory.ts';
import { MIB } from '../base/units.ts';
import { VERSION } from '../base/version.ts';
import {
  alignedBuffer,
  createEngine,
  detachTracker,
  openDevice,
  openTracker,
  type Tracker,
} from '../native/index.ts';
import type { Device, TrackerBackend } from '../native/types.ts';
import type { Dialer } from '../transport/types.ts';
import { admit, admitSize } from './admission.ts';
import { type Agent, createAgent } from './agent.ts';
import { runDoctor } from './doctor/doctor.ts';
import { startRounds } from './doctor/rounds.ts';
import { checkServerName, readIdentity } from './identity.ts';
import { defaultSettings } from './replication-state.ts';
import type { AgentStatus } from './report.ts';
import { DEFAULT_RUN_DIRECTORY, serveStatus } from './status-socket.ts';
import { volumeFacts } from './volume-facts.ts';
import { type NamedVolume, nameVolumes } from './volume-names.ts';
import { createWorkerPipeline } from './worker-pipeline.ts';

export interface RunAgentOptions {
  readonly server: string;
  /** Block devices or regular files: PATH, or NAME=PATH (volume-names.ts). */
  readonly volumes: readonly string[];
  readonly dialer: Dialer;
  readonly cutIntervalMs: number;
  readonly tracker: TrackerBackend | 'auto';
  /** Bytes a second to staging; 0: no limit. */
  readonly bandwidth: number;
  readonly log: Log;
  /** Where staging takes another machine for this server: wait to be let in (the default), or end. */
  readonly ifRefused?: 'wait' | 'exit';
  /** Where the status socket lies. */
  readonly runDirectory?: string;
  /** Memory for what has been read and not yet sent. */
  readonly bufferBytes?: number;
  /** Worker threads for digests and compression; 2 by default: the source has work of its own. */
  readonly threads?: number;
  readonly clock?: Clock;
}

export interface RunningAgent {
  status(): AgentStatus;
  /** Resolves after `close`; rejects when the agent cannot go on (refused, a defect). */
  readonly ended: Promise<void>;
  /** Stops; what is pinned goes on tracking for the next life. */
  close(): Promise<void>;
}

const BUFFER_BYTES = MIB;
const DEFAULT_BUFFERS_BYTES = 20 * MIB;
const MIN_BUFFERS = 8;

/** Throws what refuses the volumes or the tracker (ERR_DEVICE_*, ERR_TRACKER_*), ERR_AGENT_RUNNING. */
export async function runAgent(options: RunAgentOptions): Promise<RunningAgent> {
  checkServerName(options.server);
  const volumes = nameVolumes(options.volumes);
  admit(volumes.map(({ path }) => volumeFacts(path)));
  const undo: (() => unknown)[] = [];
  try {
    return await start(options, volumes, undo);
  } catch (error) {
    for (const each of undo.reverse()) await each();
    throw error;
  }
}

async function start(
  options: RunAgentOptions,
  volumes: readonly NamedVolume[],
  undo: (() => unknown)[],
): Promise<RunningAgent> {
  const { server, log } = options;
  tuneHeap();
  let agent: Agent | null = null;
  const directory = options.runDirectory ?? DEFAULT_RUN_DIRECTORY;
  const socket = await serveStatus(directory, server, () => agent?.status() ?? null);
  undo.push(() => socket.close());
  const devices = volumes.map(({ path }) => {
    const device = openDevice(path);
    undo.push(() => device.close());
    admitSize(path, device.geometry.sizeBytes);
    return device;
  });
  const tracker = await openTracker({
    backend: options.tracker,
    volumes: devices.map(({ path, geometry }) => ({ path, geometry })),
    instance: server,
  });
  undo.push(() => tracker.close());
  log.info('tracker opened', {
    backend: tracker.backend,
    reason: tracker.backendReason,
    volumes: tracker.volumes,
  });
  const ended = Promise.withResolvers<void>();
  // Whoever runs the agent hears of it; without a listener it is not an unhandled rejection.
  ended.promise.catch(() => undefined);
  const { core, stop } = startCore(options, { volumes, devices, tracker }, (error) => {
    log.error(error.message, { code: error.code, ...error.context });
    void shutDown().then(() => ended.reject(error), ended.reject);
  });
  agent = core;
  undo.push(stop);
  const shutDown = async () => {
    for (const each of undo.splice(0).reverse()) await each();
  };
  core.start();
  const { clock = systemClock } = options;
  const rounds = startRounds({
    ...{ clock, log },
    look: async (timeMs) => {
      const report = await runDoctor({ timeMs, volumes: volumes.map(({ path }) => path) });
      const boot = volumes.find(({ path }) => path === report.bootVolume);
      return { ...report, bootVolume: boot?.name ?? '' };
    },
    tell: (report) => core.tellMachine(report),
  });
  undo.push(() => rounds.stop());
  return {
    status: () => core.status(),
    ended: ended.promise,
    async close() {
      await shutDown();
      ended.resolve();
    },
  };
}

interface Opened {
  readonly volumes: readonly NamedVolume[];
  /** In the order of the volumes, as the tracker's. */
  readonly devices: readonly Device[];
  readonly tracker: Tracker;
}

function startCore(
  options: RunAgentOptions,
  { volumes, devices, tracker }: Opened,
  onGivenUp: (error: UnderstudyError) => void,
): { core: Agent; stop: () => Promise<void> } {
  const total = options.bufferBytes ?? DEFAULT_BUFFERS_BYTES;
  const count = Math.max(MIN_BUFFERS, Math.floor(total / BUFFER_BYTES));
  const buffers = Array.from({ length: count }, () => alignedBuffer(BUFFER_BYTES));
  const pipeline = createWorkerPipeline(buffers, options.threads);
  const core = createAgent({
    clock: options.clock ?? systemClock,
    log: options.log,
    random: Math.random,
    dialer: options.dialer,
    pipeline,
    buffers,
    createEngine: (events) => createEngine({ tracker, buffers, events }),
    volumes: devices.map((device, index) => ({
      name: volumes[index]!.name,
      device,
      tracked: tracker.volumes[index]!,
      isScanned: tracker.backend === 'scan',
    })),
    identity: readIdentity(options.server, VERSION),
    pid: process.pid,
    settings: {
      ...defaultSettings,
      cutIntervalMs: options.cutIntervalMs,
      drainThresholdBytes: (count * BUFFER_BYTES) / 3,
      syncBuffers: Math.max(2, Math.floor(count / 4)),
    },
    bandwidth: options.bandwidth,
    ...(options.ifRefused !== undefined && { ifRefused: options.ifRefused }),
    onGivenUp,
  });
  return {
    core,
    async stop() {
      await core.close();
      await pipeline.close();
    },
  };
}

/**
 * Takes all tracking of a server's agent out of the kernel; false where there is none. No agent of that name
 * may be running. ERR_AGENT_NAME, ERR_TRACKER_*.
 */
export const detach = (server: string): boolean => detachTracker(checkServerName(server));
