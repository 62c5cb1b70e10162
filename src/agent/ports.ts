/**
 * Everything that the agent's core needs from outside. `run-agent.ts` fills these with the real network,
 * devices and threads, the simulator with virtual ones; the core itself imports none of them.
 */
import type { Clock } from '../base/clock.ts';
import type { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ServerId } from '../model/replication.ts';
import type { Device, Engine, EngineEvents, TrackedVolume } from '../native/types.ts';
import type { Dialer } from '../transport/types.ts';
import type { Pipeline } from './pipeline.ts';
import type { AgentSettings } from './state-types.ts';

export interface AgentVolume {
  /** As the operator called it: its path, or NAME of NAME=PATH. */
  readonly name: string;
  readonly device: Device;
  readonly tracked: TrackedVolume;
  /** No help from the kernel: read over and over. */
  readonly isScanned: boolean;
}

export interface AgentIdentity {
  readonly server: ServerId;
  readonly hardwareId: string;
  readonly bootId: string;
  readonly agentVersion: string;
}

export interface AgentPorts {
  readonly clock: Clock;
  readonly log: Log;
  /** In [0, 1). */
  readonly random: () => number;
  readonly dialer: Dialer;
  readonly pipeline: Pipeline;
  readonly buffers: readonly Uint8Array[];
  readonly createEngine: (events: EngineEvents) => Engine;
  readonly volumes: readonly AgentVolume[];
  readonly identity: AgentIdentity;
  readonly pid: number;
  readonly settings: AgentSettings;
  /** Bytes a second to staging; 0: no limit. */
  readonly bandwidth: number;
  /** Refused as another machine than the one that has the name: wait to be let in (the default), or end. */
  readonly ifRefused?: 'wait' | 'exit';
  /** The agent cannot go on; called at most once. */
  readonly onGivenUp: (error: UnderstudyError) => void;
}
