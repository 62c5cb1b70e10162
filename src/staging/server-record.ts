/**
 * What the service knows of one source server: who is connected, where its volumes stand, what came in.
 * Kept in memory, rebuilt from the store at start; told by the REST API.
 */
import type { UnderstudyError } from '../base/errors.ts';
import { type VolumeId, worstState } from '../model/replication.ts';
import type { Hello, VolumeStatus } from '../protocol/messages.ts';
import { isPassing } from '../store/passing.ts';
import type { ListedPoint } from '../store/types.ts';
import type { ApiServer, ApiServerVolume, RefusedMachine } from './api-types.ts';
import type { Holder } from './lineage-state.ts';
import type { Session } from './session.ts';

/** So many of one server are remembered. */
const MAX_REFUSED = 16;

interface VolumeRecord {
  readonly volume: VolumeId;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly generation: string;
  readonly epoch: number;
  readonly status: VolumeStatus | null;
}

export interface Counts {
  receivedBytes: number;
  contentBytes: number;
  dedupeHits: number;
  dedupedBytes: number;
}

export class ServerRecord {
  readonly server: string;
  /** The live session, also while it is being opened. */
  session: Session | null = null;
  agentVersion = '';
  newestPoint: ListedPoint | null = null;
  newestWholeMs: number | null = null;
  newestWhole: string | null = null;
  /** While it is above zero nobody is let in. */
  shut = 0;
  /** Since the service began, the newest last. */
  refused: readonly RefusedMachine[] = [];
  points = 0;
  /** Why the agent is not connected, where it was refused. */
  reason = '';
  private isStalled = false;
  readonly counts: Counts = { receivedBytes: 0, contentBytes: 0, dedupeHits: 0, dedupedBytes: 0 };
  private volumes: VolumeRecord[] = [];

  constructor(server: string) {
    this.server = server;
  }

  /** False for one whose first agent was refused. */
  get isKnown(): boolean {
    return this.volumes.length > 0;
  }

  /** What the store held when the service began. */
  load(volumes: readonly Omit<VolumeRecord, 'status'>[]): void {
    this.volumes = volumes.map((volume) => ({ ...volume, status: null }));
  }

  greeted(hello: Hello): void {
    this.agentVersion = hello.agentVersion;
    this.reason = '';
    this.volumes = hello.volumes.map(({ volume, sizeBytes, sectorBytes, generation }) => ({
      volume,
      sizeBytes,
      sectorBytes,
      generation,
      epoch: 0,
      status: null,
    }));
  }

  reported(statuses: readonly VolumeStatus[]): void {
    for (const status of statuses) {
      const held = this.volumes[status.volume];
      if (held !== undefined) this.volumes[status.volume] = { ...held, status };
    }
  }

  committed(point: ListedPoint, nowMs: number): void {
    this.points += 1;
    this.noteNewest(point, nowMs);
  }

  /** A clock of the source that runs ahead does not make a point newer than its arrival. */
  noteNewest(point: ListedPoint, nowMs: number): void {
    this.newestPoint = point;
    const timeMs = Math.min(Date.parse(point.time), nowMs);
    if (point.missingVolumes.length === 0) {
      this.newestWhole = point.id;
      this.newestWholeMs = Math.max(timeMs, this.newestWholeMs ?? timeMs);
    }
  }

  refuse(machine: Pick<RefusedMachine, 'hardwareId' | 'words' | 'peer'>, now: string): void {
    const isIt = (each: RefusedMachine) => each.hardwareId === machine.hardwareId;
    const { first = now, attempts = 0 } = this.refused.find(isIt) ?? {};
    const noted = { ...machine, first, last: now, attempts: attempts + 1 };
    this.refused = [...this.refused.filter((each) => !isIt(each)), noted].slice(-MAX_REFUSED);
  }

  forgetRefused(hardwareId: string): void {
    this.refused = this.refused.filter((each) => each.hardwareId !== hardwareId);
  }

  describe(
    holder: Holder | undefined,
    nowMs: number,
  ): Omit<ApiServer, 'keep' | 'check' | 'durability' | 'machine' | 'prestage'> {
    const connected = this.session?.isOpen ?? false;
    const volumes = this.volumes.map((volume, i) => this.describeVolume(volume, i, connected));
    return {
      server: this.server,
      connected,
      state: worstState(volumes.map(({ state }) => state)),
      lagMs: this.newestWholeMs === null ? null : Math.max(0, nowMs - this.newestWholeMs),
      backlogBytes: volumes.reduce((sum, { backlogBytes }) => sum + backlogBytes, 0),
      hardwareId: holder?.hardwareId ?? '',
      pendingHardwareId: holder?.pendingHardwareId ?? null,
      refused: this.refused.map((machine) => ({ ...machine, job: null })),
      since: holder?.since ?? null,
      fromPoint: holder?.fromPoint ?? null,
      former: holder?.former ?? [],
      agentVersion: this.agentVersion,
      ...this.counts,
      points: this.points,
      volumes,
      newestPoint: this.newestPoint,
    };
  }

  private describeVolume(record: VolumeRecord, index: number, connected: boolean): ApiServerVolume {
    const { status, ...volume } = record;
    const without = this.isStalled ? 'stalled' : 'disconnected';
    const state = connected ? (status?.state ?? 'initiating') : without;
    return {
      ...volume,
      epoch: this.session?.volumes[index]?.committedEpoch ?? volume.epoch,
      state,
      reason: connected ? (status?.reason ?? '') : this.reason,
      backlogBytes: status?.backlogBytes ?? 0,
      syncedBytes: status?.syncedBytes ?? 0,
      totalBytes: status?.totalBytes ?? volume.sizeBytes,
      missedCompletions: status?.missedCompletions ?? 0,
      suspectBlocks: status?.suspectBlocks ?? 0,
    };
  }

  /** The session is gone: its positions stay. */
  left(session: Session, error: UnderstudyError): void {
    if (this.session !== session) return;
    this.reason = error.message;
    this.isStalled = isPassing(error);
    this.volumes = this.volumes.map((volume, i) => ({
      ...volume,
      epoch: session.volumes[i]?.committedEpoch ?? volume.epoch,
    }));
    this.session = null;
  }
}
