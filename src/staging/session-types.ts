/** State, events and effects of one agent's session; see session-state.ts. Data only. */
import type { UnderstudyError } from '../base/errors.ts';
import type { IndexedEntry } from '../model/entry.ts';
import type { MachineReport } from '../model/machine.ts';
import type {
  AgentMessage,
  Hello,
  Ping,
  Pong,
  StagingMessage,
  VolumeStatus,
  WirePiece,
} from '../protocol/messages.ts';
import type { CommitOutcome, CommitRequest, VolumePosition } from '../store/types.ts';

export interface SessionLimits {
  /** Granted in Welcome. */
  readonly windowBytes: number;
  /** Offers given to the store and not yet answered, beyond which no more is taken from the network. */
  readonly unansweredOffers: number;
  /** Batches complete and not yet durable, likewise. */
  readonly waitingBatches: number;
  /** Offers whose contents have not come: more than an agent's window allows it. */
  readonly incompleteOffers: number;
}

export const defaultLimits: SessionLimits = {
  windowBytes: 16 * 2 ** 20,
  unansweredOffers: 64,
  waitingBatches: 1024,
  incompleteOffers: 4096,
};

export interface SessionVolume {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly generation: string;
  /** Epochs of this generation that are committed, and the digest of the last of them. */
  readonly committedEpoch: number;
  readonly contentDigest: string;
}

/** An offer or a patch that is not yet `stored`. */
export interface Batch {
  readonly seq: number;
  readonly volume: number;
  /** Bytes of its contents that count against the window, and of its frames that lie in memory. */
  readonly contentBytes: number;
  readonly frameBytes: number;
  /** Contents that an offer asks about, by digest (hex); null once it is answered, and for a patch. */
  readonly asked: readonly { readonly digest: string; readonly length: number }[] | null;
  /** Digests whose contents are still to come. */
  readonly wanted: ReadonlySet<string>;
}

export interface SessionState {
  readonly phase: 'greeting' | 'opening' | 'open' | 'ended';
  readonly limits: SessionLimits;
  readonly volumes: readonly SessionVolume[];
  readonly lastSeq: number;
  /** Ascending. */
  readonly batches: readonly Batch[];
  readonly storedSeq: number;
  /** The batch up to which durability has been asked for; null: nothing is asked. */
  readonly syncingSeq: number | null;
  /** Bytes of contents that have arrived and are not `stored`. */
  readonly inFlightBytes: number;
  /** The commit that the store is working on. */
  readonly commit: CommitRequest | null;
}

export type Spoken = Exclude<AgentMessage, Ping | Pong>;

export type SessionEvent =
  /** A frame has come in; it is not yet decoded. */
  | { readonly type: 'arrived'; readonly contentBytes: number }
  /** In order; contents are verified. `digests`: for a commit, what this side counted by volume. */
  | {
      readonly type: 'message';
      readonly message: Spoken;
      readonly frameBytes: number;
      readonly digests?: readonly string[];
    }
  | {
      readonly type: 'opened';
      readonly sessionId: string;
      readonly version: string;
      readonly positions: readonly VolumePosition[];
    }
  | {
      readonly type: 'answered';
      readonly seq: number;
      readonly need: Uint8Array;
      readonly changed: number;
    }
  | { readonly type: 'durable' }
  | { readonly type: 'commit-done'; readonly outcome: CommitOutcome }
  | { readonly type: 'cut-wanted'; readonly requestId: string }
  /** Anything that ends the session from this side. */
  | { readonly type: 'failed'; readonly error: UnderstudyError }
  | { readonly type: 'disconnected'; readonly error: UnderstudyError };

export type SessionEffect =
  | { readonly type: 'send'; readonly message: StagingMessage }
  | { readonly type: 'open'; readonly hello: Hello }
  | {
      readonly type: 'offer';
      readonly seq: number;
      readonly volume: number;
      readonly entries: readonly IndexedEntry[];
      readonly synced: number;
    }
  | {
      readonly type: 'patch';
      readonly volume: number;
      readonly entries: readonly IndexedEntry[];
      readonly pieces: readonly WirePiece[];
    }
  | { readonly type: 'pieces'; readonly pieces: readonly WirePiece[] }
  | { readonly type: 'sync' }
  | { readonly type: 'commit'; readonly request: CommitRequest }
  /** The open epochs of these volumes begin anew: their digests too. */
  | {
      readonly type: 'committed';
      readonly outcome: Extract<CommitOutcome, { kind: 'committed' }>;
      readonly request: CommitRequest;
    }
  | { readonly type: 'report'; readonly volumes: readonly VolumeStatus[] }
  | { readonly type: 'machine'; readonly report: MachineReport }
  /** Contents that the answer "have" spared. */
  | { readonly type: 'deduped'; readonly hits: number; readonly bytes: number }
  /** Tell the agent why (where it still listens), close, give the ingest back. */
  | { readonly type: 'end'; readonly error: UnderstudyError; readonly isToldWhy: boolean };

export interface SessionStep {
  readonly state: SessionState;
  readonly effects: readonly SessionEffect[];
}
