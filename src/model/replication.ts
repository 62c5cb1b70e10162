/**
 * The words of replication: identities, positions, states and recovery points, as the agent, the wire,
 * the store and the REST API all use them. Pure types and tiny pure helpers.
 */

/** A server's name as its operator gave it: 1..128 of [A-Za-z0-9._-], not starting with '.' or '-'. */
export type ServerId = string;
export const isServerId = (text: string): boolean =>
  /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(text);
/** A volume as it was given to the agent (a path), at most 255 bytes of UTF-8. */
export type VolumeId = string;
/** 32 hex digits: identity of a tracker's unbroken history of one volume. */
export type Generation = string;

/** Where a volume stands: `epoch` counts the committed epochs of `generation`, from 1. */
export interface Position {
  readonly generation: Generation;
  readonly epoch: number;
}

/** Replication states under the field's names (those of AWS DRS). */
export const replicationStates = [
  'stopped',
  'initiating',
  'initial-sync',
  'backlog',
  'creating-recovery-point',
  'continuous',
  'paused',
  'rescan',
  'stalled',
  'disconnected',
] as const;
export type ReplicationState = (typeof replicationStates)[number];

/** From the best to the worst. */
const severity: readonly ReplicationState[] = [
  'continuous',
  'creating-recovery-point',
  'paused',
  'backlog',
  'rescan',
  'initial-sync',
  'initiating',
  'stalled',
  'disconnected',
  'stopped',
];

/** The server's state: that of the volume that is farthest from continuous. */
export const worstState = (states: readonly ReplicationState[]): ReplicationState =>
  severity[Math.max(0, ...states.map((each) => severity.indexOf(each)))]!;

/** How a recovery point was cut; see ARCHITECTURE.md, "The cut". */
export type CutMethod = 'validated' | 'scan' | 'frozen' | 'logged';

export interface CutInfo {
  readonly method: CutMethod;
  /** Flips until no block was contested. */
  readonly passes: number;
  /** From the first flip to the end of validation. */
  readonly durationMs: number;
}

export interface PointVolume {
  readonly volume: VolumeId;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly generation: Generation;
  readonly epoch: number;
  /** Hex digest over the chain of maps up to this position. */
  readonly chainRoot: string;
}

export interface RecoveryPoint {
  /** Sorts by time: "20261120T103107.123Z-1f2e3d4c". */
  readonly id: string;
  readonly server: ServerId;
  /** T, the instant of the cut by the source's wall clock, ISO 8601 with milliseconds, UTC. */
  readonly time: string;
  readonly cut: CutInfo;
  readonly volumes: readonly PointVolume[];
  /** Volumes of the server that were not continuous at T and are left out; not empty means partial. */
  readonly missingVolumes: readonly VolumeId[];
}

/** `staged`: needs the journal. `sealed`: the repository alone gives it back. */
export type PointState = 'staged' | 'sealed';
