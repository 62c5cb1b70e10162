/**
 * Every message of `understudy.v1` as a type. The bytes are in PROTOCOL.md and `codec.ts`; this file is
 * the list of what may be said and what it means.
 *
 * Order is meaning: entries apply in the order in which they were sent, a later one lies over an earlier
 * one (`model/entry.ts`, compose). `seq` counts the batches of a session from 1; `offer` and `patch`
 * share that count. Per volume there is one open epoch; it becomes visible only by `commit`.
 */
import type { IndexedEntry } from '../model/entry.ts';
import type { MachineReport } from '../model/machine.ts';
import type {
  CutInfo,
  Position,
  ReplicationState,
  ServerId,
  VolumeId,
} from '../model/replication.ts';

export const SUBPROTOCOL = 'understudy.v1';
export const PROTOCOL_VERSION = 1;

/** Agent -> staging, first message. */
export interface Hello {
  type: 'hello';
  version: number;
  server: ServerId;
  /** Hex digest that identifies the machine (DMI product UUID, machine id). */
  hardwareId: string;
  bootId: string;
  agentVersion: string;
  volumes: HelloVolume[];
}
export interface HelloVolume {
  volume: VolumeId;
  sizeBytes: number;
  sectorBytes: number;
  generation: string;
  /** Epochs of this generation that the agent knows to be committed. */
  committedEpoch: number;
  /** True while the generation's first epoch is still being synced. */
  syncing: boolean;
}

/** Staging -> agent: what staging holds of each volume in Hello, in the same order. */
export interface Welcome {
  type: 'welcome';
  version: number;
  stagingVersion: string;
  sessionId: string;
  /** Bytes of pieces that may be sent and not yet `stored`. */
  windowBytes: number;
  volumes: WelcomeVolume[];
}
export interface WelcomeVolume {
  /** Newest committed position of any generation; null where staging holds nothing. */
  committed: (Position & { contentDigest: string }) | null;
  /** Open epoch of the agent's own generation: chunks [0, syncedChunks) are durable in staging. */
  syncedChunks: number;
}

/**
 * Agent -> staging: whole or zero entries in ascending order, to be answered. Used by initial sync and
 * rescan. `synced`: all chunks below it have been offered (0 where this batch is not part of a sync).
 */
export interface Offer {
  type: 'offer';
  seq: number;
  volume: number;
  synced: number;
  entries: IndexedEntry[];
}
/**
 * Staging -> agent: for the whole (non-zero) entries of offer `seq`, in order: 1 = send the content.
 * `changed` counts chunks whose entry differs from what staging held at that place (a rescan's findings).
 */
export interface Answer {
  type: 'answer';
  seq: number;
  need: Uint8Array;
  changed: number;
}
/** Agent -> staging: entries with their content, sent without asking (patches; whole chunks of a cut). */
export interface Patch {
  type: 'patch';
  seq: number;
  volume: number;
  entries: IndexedEntry[];
  pieces: WirePiece[];
}
/** Agent -> staging: the contents that an answer asked for. */
export interface Pieces {
  type: 'pieces';
  seq: number;
  pieces: WirePiece[];
}
/** One content, named by its digest; `stored` is LZ4 (block format) where codec is 1, else as it is. */
export interface WirePiece {
  digest: Uint8Array;
  codec: 0 | 1;
  rawLength: number;
  stored: Uint8Array;
}
/** Staging -> agent: everything up to batch `seq`, entries and asked-for pieces, is durable. */
export interface Stored {
  type: 'stored';
  seq: number;
  /** Bytes of pieces that this frees in the window. */
  bytes: number;
}

/** Agent -> staging: all batches so far, of these volumes, are the state at `time`. Idempotent. */
export interface Commit {
  type: 'commit';
  /** Wall clock of T in milliseconds. */
  timeMs: number;
  cut: CutInfo;
  /** Set where an operator asked for this point (CutRequest). */
  requestId: string;
  volumes: CommitVolume[];
}
export interface CommitVolume {
  volume: number;
  generation: string;
  /** The epoch that this commits: committed + 1 of this generation. */
  epoch: number;
  /** SHA-256 (hex) over the encoded entries of this epoch in this session, in order. */
  contentDigest: string;
}
/** Staging -> agent: durable, visible. */
export interface Committed {
  type: 'committed';
  pointId: string;
  volumes: { volume: number; generation: string; epoch: number }[];
}
/** Staging -> agent, instead of Committed: chunks that need a whole; send them, cut again, commit again. */
export interface Missing {
  type: 'missing';
  volumes: { volume: number; chunks: number[]; more: boolean }[];
}

/** Staging -> agent: an operator wants a point now. */
export interface CutRequest {
  type: 'cut-request';
  requestId: string;
}
/** Agent -> staging, every few seconds: what an operator sees. */
export interface Status {
  type: 'status';
  volumes: VolumeStatus[];
}
export interface VolumeStatus {
  volume: number;
  state: ReplicationState;
  /** Bytes known to be changed and not yet committed. */
  backlogBytes: number;
  /** Progress of an initial sync or rescan. */
  syncedBytes: number;
  totalBytes: number;
  /** Why the state is what it is; empty when all is well. */
  reason: string;
  /** Tripwire counts since the tracker began. */
  missedCompletions: number;
  suspectBlocks: number;
}
/**
 * Agent -> staging, after Welcome and whenever it was looked at anew: what the machine is, and what was
 * found of it. The last one counts.
 */
export interface Machine {
  type: 'machine';
  report: MachineReport;
}
export interface Ping {
  type: 'ping';
  id: number;
}
export interface Pong {
  type: 'pong';
  id: number;
}
/** Either way: coded reason, followed by a close. */
export interface Refusal {
  type: 'refusal';
  code: string;
  message: string;
}

export type AgentMessage =
  | Hello
  | Offer
  | Patch
  | Pieces
  | Commit
  | Status
  | Machine
  | Ping
  | Pong
  | Refusal;
export type StagingMessage =
  | Welcome
  | Answer
  | Stored
  | Committed
  | Missing
  | CutRequest
  | Ping
  | Pong
  | Refusal;
export type Message = AgentMessage | StagingMessage;
