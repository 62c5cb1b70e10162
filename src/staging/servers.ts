/**
 * All source servers of the service: one live session each, who may open one, points on demand. Core
 * logic without a network or threads: the simulator runs it as it is.
 */
import { type Clock, sleep } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { MachineReport } from '../model/machine.ts';
import type { ServerId } from '../model/replication.ts';
import type { Hello, VolumeStatus } from '../protocol/messages.ts';
import { isPassing } from '../store/passing.ts';
import type { CommitRequest, Ingest, Store } from '../store/types.ts';
import type { Connection, ConnectionHandlers } from '../transport/types.ts';
import type { ApiServer, Durability } from './api-types.ts';
import { type Admission, admit, admitPending, type Holder, type Moment } from './lineage-state.ts';
import { type Machines, summaryOf } from './machines.ts';
import { PointRequests } from './point-requests.ts';
import type { Register } from './register.ts';
import { ServerRecord } from './server-record.ts';
import { type CommittedPoint, Session, type SessionHost } from './session.ts';
import { defaultLimits, type SessionLimits } from './session-types.ts';
import type { Verifier } from './verifier.ts';

export interface ServersPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly register: Register;
  readonly machines: Machines;
  readonly verifier: Verifier;
  readonly version: string;
  /** A name that was never used before. */
  readonly newId: () => string;
  /** The store cannot go on, or a defect: called once. */
  readonly onBroken: (error: UnderstudyError) => void;
  readonly limits?: SessionLimits;
  /** When a commit is acknowledged: durable in the journal, or sealed in the repository. */
  readonly durability?: Durability;
}

const PAGE = 500;
/** How long no agent is let in after the disk was full: doubled each time, until a point comes again. */
const FULL_WAIT_MS = 1000;
const FULL_WAIT_CAP_MS = 30_000;
/** Between two looks whether a point is sealed by now. */
const SEAL_WAIT_MS = 1000;

export class Servers implements SessionHost {
  private readonly ports: ServersPorts;
  private readonly records = new Map<ServerId, ServerRecord>();
  private readonly sessions = new Set<Session>();
  private readonly requests: PointRequests;
  /** What the last point of a server lacked. */
  private readonly missing = new Map<ServerId, string>();
  private fullWaitMs = FULL_WAIT_MS;
  private fullUntilMs = 0;
  private waitsFor: UnderstudyError | null = null;
  private isStopping = false;
  private isBroken = false;

  constructor(ports: ServersPorts) {
    this.ports = ports;
    this.requests = new PointRequests(ports.clock, ports.newId);
  }

  /** What the store holds of each server, and who has their names. */
  async load(): Promise<void> {
    const { store, register } = this.ports;
    for (const { server } of register.all()) this.record(server);
    for (const { server, volumes, newestPoint } of await store.servers()) {
      const record = this.record(server);
      record.load(volumes);
      await this.loadPoints(record);
      if (newestPoint !== null) record.noteNewest(newestPoint, this.ports.clock.wallMs());
    }
  }

  private async loadPoints(record: ServerRecord): Promise<void> {
    const { server } = record;
    for (let after: string | undefined; ; ) {
      const filter = { server, order: 'oldest', limit: PAGE } as const;
      const page = await this.ports.store.points(
        after === undefined ? filter : { ...filter, after },
      );
      for (const point of page) record.committed(point, this.ports.clock.wallMs());
      if (page.length < PAGE) return;
      after = page.at(-1)!.id;
    }
  }

  /**
   * A new connection of some agent. `words`: what its machine says of itself; `only`: the server that its
   * token lets it speak for, null where it is that of an operator.
   */
  accept(
    connect: (handlers: ConnectionHandlers) => Connection,
    words: readonly string[] = [],
    only: ServerId | null = null,
  ): void {
    const { clock, log, verifier, version, limits = defaultLimits } = this.ports;
    const session = new Session(
      { clock, log, verifier, version, limits, words, only, host: this },
      connect,
    );
    this.sessions.add(session);
    if (this.isStopping) session.end(stopping());
  }

  describe(): Omit<ApiServer, 'keep' | 'check' | 'prestage'>[] {
    const { clock, register, machines } = this.ports;
    const { durability } = this;
    const nowMs = clock.wallMs();
    return [...this.records.values()]
      .filter((record) => record.isKnown)
      .sort((a, b) => (a.server < b.server ? -1 : 1))
      .map((record) => ({
        ...record.describe(register.get(record.server), nowMs),
        durability,
        machine: summaryOf(machines.get(record.server)),
      }));
  }

  receivedBytes(): number {
    let sum = 0;
    for (const { counts } of this.records.values()) sum += counts.receivedBytes;
    return sum;
  }

  /** ERR_SERVER_NOT_FOUND, ERR_SERVER_OFFLINE; `committed` rejects with ERR_POINT_TIMEOUT. */
  requestPoint(
    server: ServerId,
    timeoutMs: number,
  ): { requestId: string; committed: Promise<string> } {
    const record = this.find(server);
    if (record.session?.isOpen !== true) {
      throw new UnderstudyError('ERR_SERVER_OFFLINE', `the agent of ${server} is not connected`);
    }
    const request = this.requests.add(server, timeoutMs);
    record.session.requestCut(request.requestId);
    return request;
  }

  /** ERR_SERVER_NOT_FOUND, ERR_HARDWARE_NOT_PENDING. */
  async admit(server: ServerId, hardwareId: string): Promise<void> {
    const record = this.find(server);
    const { register, log } = this.ports;
    const known = register.get(server);
    const waiting = record.refused.map((machine) => machine.hardwareId);
    const notPending = () => {
      const message = `no machine ${hardwareId} waits to be ${server}`;
      return new UnderstudyError('ERR_HARDWARE_NOT_PENDING', message, { server });
    };
    if (known === undefined) throw notPending();
    const moment = await this.moment(server);
    await register.update(server, (holder) => {
      const next = admitPending(holder, hardwareId, waiting, moment);
      if (next === null) throw notPending();
      return next;
    });
    record.forgetRefused(hardwareId);
    log.warn('other hardware was admitted', { server, hardwareId, before: known.hardwareId });
    record.session?.end(otherHardware(server, 'another machine was admitted as this server'));
  }

  /** Now, and the whole point that was committed last: what a change of the machine is noted with. */
  async moment(server: ServerId): Promise<Moment> {
    const { clock, store } = this.ports;
    const last = await store.lastCommitted(server);
    return { now: new Date(clock.wallMs()).toISOString(), newestPoint: last?.id ?? null };
  }

  /**
   * Ends the session of a server and lets nobody in until the function that is returned was called: for
   * changes of its machine. Once it resolves no point comes any more. ERR_SERVER_NOT_FOUND.
   */
  async shut(server: ServerId): Promise<() => void> {
    const record = this.find(server);
    record.shut += 1;
    const { session } = record;
    session?.end(changing(server));
    await session?.ended;
    let isOpen = false;
    return () => {
      if (!isOpen) record.shut -= 1;
      isOpen = true;
    };
  }

  /** The token that let them in is good no more: ends the sessions that are there by it. */
  revoked(server: ServerId): void {
    for (const session of this.sessions) {
      if (session.only === server) session.end(tokenRefused(`the token of ${server} was revoked`));
    }
  }

  /** What the service knows of a server. ERR_SERVER_NOT_FOUND. */
  recordOf(server: ServerId): ServerRecord {
    return this.find(server);
  }

  /** What is held of a volume of this server is damaged: its agent is told at its next Hello, at once. */
  rescan(server: ServerId): void {
    this.records.get(server)?.session?.end(damagedHere(server));
  }

  /** Retention has dropped points. */
  dropped(server: ServerId, points: number): void {
    this.record(server).points -= points;
  }

  /** Ends all sessions; resolves once nothing of them is left. */
  async stop(): Promise<void> {
    this.isStopping = true;
    const sessions = [...this.sessions];
    for (const session of sessions) session.end(stopping());
    await Promise.all(sessions.map((session) => session.ended));
    this.requests.stop();
  }

  async open(session: Session, hello: Hello): Promise<{ ingest: Ingest; sessionId: string }> {
    if (this.isStopping) throw stopping();
    const { server } = hello;
    if (session.only !== null && session.only !== server) {
      throw tokenRefused(`the token is that of ${session.only}, not of ${server}`);
    }
    this.checkSpace();
    const { store, newId } = this.ports;
    await this.checkHolder(session, hello);
    const record = this.record(server);
    await this.replace(record, session);
    // Anew, as another machine may have been admitted meanwhile.
    const news = await this.checkHolder(session, hello);
    const ingest = await store.beginIngest(server, hello.volumes);
    try {
      await this.settleNewest(server);
      if (this.isStopping) throw stopping();
      if (record.session !== session) throw replaced(server);
      if (news !== null) await this.learn(session, hello);
    } catch (error) {
      await ingest.close();
      throw error;
    }
    record.greeted(hello);
    return { ingest, sessionId: newId() };
  }

  /** Agents would send the same again and again, only to be told that there is no room. */
  private checkSpace(): void {
    if (this.ports.clock.monotonicMs() >= this.fullUntilMs) return;
    if (this.waitsFor?.code !== 'ERR_DISK_FULL' && this.waitsFor !== null) throw this.waitsFor;
    throw new UnderstudyError('ERR_DISK_FULL', "staging's disk is full");
  }

  private storeWaits(error: UnderstudyError): void {
    this.waitsFor = error;
    this.fullUntilMs = this.ports.clock.monotonicMs() + this.fullWaitMs;
    this.fullWaitMs = Math.min(2 * this.fullWaitMs, FULL_WAIT_CAP_MS);
  }

  /** Throws ERR_OTHER_HARDWARE. Returns what the register has to learn, if anything. */
  private async checkHolder(session: Session, hello: Hello): Promise<Holder | null> {
    const { register, log, clock } = this.ports;
    const { server, hardwareId } = hello;
    const record = this.records.get(server);
    if (record !== undefined && record.shut > 0) throw changing(server);
    const { words, connection } = session;
    const known = register.get(server);
    const now = new Date(clock.wallMs()).toISOString();
    const admission = this.admission(known, session, hello);
    if (admission.kind === 'admitted') return admission.holder;
    const { peer } = connection;
    log.error('other hardware was refused', { server, hardwareId, words, peer });
    record?.refuse({ hardwareId, words, peer }, now);
    // Once for each machine, not each time that it tries.
    if (admission.holder.pendingHardwareId !== known?.pendingHardwareId) {
      await register.update(server, (holder) => ({ ...holder, pendingHardwareId: hardwareId }));
    }
    throw otherHardware(server, admission.why);
  }

  private admission(
    known: Holder | undefined,
    { words }: Session,
    { server, hardwareId }: Hello,
  ): Admission {
    const now = new Date(this.ports.clock.wallMs()).toISOString();
    const newestPoint = this.records.get(server)?.newestWhole ?? null;
    return admit(known, server, { hardwareId, words }, { now, newestPoint });
  }

  /** The machine has the name from now on, if it still may: a failback may have begun meanwhile. */
  private async learn(session: Session, hello: Hello): Promise<void> {
    const { server } = hello;
    await this.ports.register.change(server, (known) => {
      const admission = this.admission(known, session, hello);
      if (admission.kind === 'refused') throw otherHardware(server, admission.why);
      return admission.holder ?? known!;
    });
  }

  /** The newest connection of the same machine counts: the one before is half open, or forgotten. */
  private async replace(record: ServerRecord, session: Session): Promise<void> {
    const former = record.session;
    record.session = session;
    if (former !== null) {
      const { server } = record;
      this.ports.log.warn('a newer connection takes over', { server });
      former.end(replaced(server));
      await former.ended;
    }
    if (record.session !== session) throw replaced(record.server);
  }

  opened(session: Session): void {
    const { server, volumes, connection } = session;
    const positions = volumes.map(({ volume, committedEpoch }) => `${volume}@${committedEpoch}`);
    this.ports.log.info('agent connected', { server, peer: connection.peer, volumes: positions });
    for (const id of this.requests.openOf(server)) session.requestCut(id);
  }

  received(session: Session, counts: { frameBytes: number; contentBytes: number }): void {
    const record = this.records.get(session.server);
    if (record === undefined) return;
    record.counts.receivedBytes += counts.frameBytes;
    record.counts.contentBytes += counts.contentBytes;
  }

  deduped(session: Session, hits: number, bytes: number): void {
    const { counts } = this.record(session.server);
    counts.dedupeHits += hits;
    counts.dedupedBytes += bytes;
  }

  reported(session: Session, volumes: readonly VolumeStatus[]): void {
    this.record(session.server).reported(volumes);
  }

  /** What the last agent of this server told of its machine; null where none did. */
  machine(server: ServerId): MachineReport | null {
    return this.ports.machines.get(this.find(server).server);
  }

  examined(session: Session, report: MachineReport): void {
    this.ports.machines.set(session.server, report);
  }

  /** An initial sync takes hours, with a point every few seconds: what changes is told, not every point. */
  private tellMissing(server: ServerId, { id, missingVolumes }: CommittedPoint): void {
    const missing = missingVolumes.join(', ');
    if (missing === (this.missing.get(server) ?? '')) return;
    this.missing.set(server, missing);
    const fields = { server, point: id, missing: missingVolumes };
    if (missing === '') this.ports.log.info('points are whole', fields);
    else this.ports.log.warn('points are partial', fields);
  }

  committed(
    session: Session,
    point: CommittedPoint,
    request: CommitRequest,
  ): Promise<void> | undefined {
    const { server } = session;
    const listed = { ...point, state: 'staged', hold: null, copies: [] } as const;
    this.record(server).committed(listed, this.ports.clock.wallMs());
    this.fullWaitMs = FULL_WAIT_MS;
    const { passes, durationMs } = point.cut;
    this.ports.log.debug('point', { server, point: point.id, passes, durationMs });
    this.tellMissing(server, point);
    if (this.durability === 'local') {
      this.requests.satisfied(request.requestId, point.id);
      return undefined;
    }
    return this.whenSealed(session, point.id).then(() => {
      this.requests.satisfied(request.requestId, point.id);
    });
  }

  get durability(): Durability {
    return this.ports.durability ?? 'local';
  }

  /** Resolves once the point is sealed, however long its object store is away; rejects with the session. */
  private async whenSealed(session: Session, id: string): Promise<void> {
    const { store, clock, log } = this.ports;
    for (;;) {
      try {
        await store.seal(id);
        return;
      } catch (error) {
        if (!isPassing(error) || !session.isOpen) throw error;
        log.warn('a point waits to be acknowledged', { server: session.server, point: id });
        await sleep(clock, SEAL_WAIT_MS);
      }
    }
  }

  /**
   * The positions that an agent is told are acknowledged by that: so what a former session has committed
   * must be as durable as a commit is. Where it is not yet, the agent comes again.
   */
  private async settleNewest(server: ServerId): Promise<void> {
    if (this.durability === 'local') return;
    const { store } = this.ports;
    // The clock of the machine may have been set back, and points may be partial: any of them may be the one
    // that a position is of.
    const staged = (await store.points({ server })).find(({ state }) => state === 'staged');
    if (staged !== undefined) await store.seal(staged.id);
  }

  closed(session: Session, error: UnderstudyError): void {
    this.sessions.delete(session);
    const { server, connection } = session;
    const level = error.spec.retryable ? 'info' : 'warn';
    const fields = { server, peer: connection.peer, code: error.code, reason: error.message };
    this.ports.log[level]('agent disconnected', fields);
    this.records.get(server)?.left(session, error);
    if (isPassing(error) && session.wasOpen) this.storeWaits(error);
  }

  broken(error: UnderstudyError): void {
    if (this.isBroken || this.isStopping) return;
    this.isBroken = true;
    this.ports.onBroken(error);
  }

  private record(server: ServerId): ServerRecord {
    const known = this.records.get(server);
    if (known !== undefined) return known;
    const made = new ServerRecord(server);
    this.records.set(server, made);
    return made;
  }

  private find(server: ServerId): ServerRecord {
    const record = this.records.get(server);
    if (record !== undefined) return record;
    throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
  }
}

const stopping = (): UnderstudyError =>
  new UnderstudyError('ERR_STAGING_STOPPING', 'staging is being stopped');

const tokenRefused = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_AGENT_TOKEN', message);

const damagedHere = (server: ServerId): UnderstudyError =>
  new UnderstudyError('ERR_RESCAN_DEMANDED', `what staging holds of ${server} is damaged`);

const replaced = (server: ServerId): UnderstudyError =>
  new UnderstudyError('ERR_SESSION_REPLACED', `${server} has connected anew`);

const changing = (server: ServerId): UnderstudyError =>
  new UnderstudyError('ERR_SESSION_REPLACED', `the machine of ${server} is being changed`);

const otherHardware = (server: ServerId, message: string): UnderstudyError =>
  new UnderstudyError('ERR_OTHER_HARDWARE', message, { server });
