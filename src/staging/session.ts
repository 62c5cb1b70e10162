/**
 * The shell of a session: takes frames from the connection in order, has their contents verified, feeds
 * the state machine (session-state.ts) and does what it asks for: store, answers, the end. Holds back the
 * network while more lies here than the limits allow (P5). Decides nothing by itself.
 */

import type { Clock, Timer } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { formatDuration } from '../base/units.ts';
import type { IndexedEntry } from '../model/entry.ts';
import { encodeEntries } from '../model/entry-codec.ts';
import type { MachineReport } from '../model/machine.ts';
import type { ServerId } from '../model/replication.ts';
import { decodeMessage, encodeMessage, peekType } from '../protocol/codec.ts';
import { EpochDigests } from '../protocol/epoch-digests.ts';
import { peekContentBytes } from '../protocol/frame.ts';
import type { Hello, StagingMessage, VolumeStatus } from '../protocol/messages.ts';
import type { CommitRequest, Ingest } from '../store/types.ts';
import { Heartbeat } from '../transport/heartbeat.ts';
import type { Connection, ConnectionHandlers } from '../transport/types.ts';
import { asError, toldError } from './session-errors.ts';
import { mustWait, reduceSession, startSession } from './session-state.ts';
import type {
  SessionEffect,
  SessionEvent,
  SessionLimits,
  SessionState,
  SessionVolume,
  Spoken,
} from './session-types.ts';
import type { Verifier } from './verifier.ts';

/** The service as a session sees it. */
export interface SessionHost {
  /** Admits the agent, waits for the end of its former session, begins the ingest. Throws a refusal. */
  open(session: Session, hello: Hello): Promise<{ ingest: Ingest; sessionId: string }>;
  opened(session: Session): void;
  received(session: Session, counts: { frameBytes: number; contentBytes: number }): void;
  deduped(session: Session, hits: number, bytes: number): void;
  reported(session: Session, volumes: readonly VolumeStatus[]): void;
  /** What the agent's machine is, and what was found of it. */
  examined(session: Session, report: MachineReport): void;
  /**
   * A point is visible, durably; also where the agent has gone meanwhile. The agent is told once what is
   * returned has resolved.
   */
  committed(
    session: Session,
    point: CommittedPoint,
    request: CommitRequest,
  ): Promise<void> | undefined;
  /** The session has given everything back. */
  closed(session: Session, error: UnderstudyError): void;
  /** The store cannot go on, or a defect: the service has to stop. */
  broken(error: UnderstudyError): void;
}
export type CommittedPoint = Extract<
  Awaited<ReturnType<Ingest['commit']>>,
  { kind: 'committed' }
>['point'];

export interface SessionPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly verifier: Verifier;
  readonly host: SessionHost;
  readonly limits: SessionLimits;
  readonly version: string;
  /** What the agent's machine says of itself in clear, before it is known who it is. */
  readonly words?: readonly string[];
  /** The only server that its token lets it speak for; null: any. */
  readonly only?: ServerId | null;
}

const HELLO_LIMIT_MS = 10_000;
const PING_INTERVAL_MS = 2000;
const SILENCE_MS = 10_000;
/** Frames that wait their turn here: above the first the network is held back, below the second not. */
const PAUSE_BYTES = 8 * 2 ** 20;
const RESUME_BYTES = 2 * 2 ** 20;

/** Answers that the agent has not taken. */
const MAX_UNREAD_BYTES = 16 * 2 ** 20;

interface Arrived {
  readonly bytes: number;
  readonly frame: Promise<Uint8Array>;
}

export class Session {
  /** Resolves once nothing of the session is left. */
  readonly ended: Promise<void>;
  readonly connection: Connection;
  server = '';
  private readonly ports: SessionPorts;
  private readonly heartbeat: Heartbeat;
  private readonly helloTimer: Timer;
  private readonly digests = new EpochDigests();
  private readonly inbox: Arrived[] = [];
  /** Frames whose memory is given back when their batch is stored. */
  private lent: { readonly seq: number; readonly frame: Uint8Array }[] = [];
  private readonly whenEnded = Promise.withResolvers<void>();
  private state: SessionState;
  private ingest: Ingest | null = null;
  private opening: Promise<void> = Promise.resolve();
  private inboxBytes = 0;
  private isPaused = false;
  private isWorking = false;

  constructor(ports: SessionPorts, connect: (handlers: ConnectionHandlers) => Connection) {
    this.ports = ports;
    this.ended = this.whenEnded.promise;
    this.state = startSession(ports.limits);
    this.heartbeat = new Heartbeat({
      clock: ports.clock,
      intervalMs: PING_INTERVAL_MS,
      limitMs: SILENCE_MS,
      sendPing: (id) => this.send({ type: 'ping', id }),
      onSilent: (silentMs) => this.silent(`nothing heard for ${formatDuration(silentMs)}`),
    });
    this.helloTimer = ports.clock.after(HELLO_LIMIT_MS, () => {
      if (this.state.phase === 'greeting') this.silent('no Hello');
    });
    this.connection = connect({
      onOpen: () => undefined,
      onMessage: (frame) => this.arrived(frame),
      onDrained: () => undefined,
      onClosed: (error) => this.dispatch({ type: 'disconnected', error }),
    });
  }

  get words(): readonly string[] {
    return this.ports.words ?? [];
  }
  get only(): ServerId | null {
    return this.ports.only ?? null;
  }
  get volumes(): readonly SessionVolume[] {
    return this.state.volumes;
  }
  /** It was given an ingest. */
  get wasOpen(): boolean {
    return this.ingest !== null;
  }
  get isOpen(): boolean {
    return this.state.phase === 'open';
  }

  /** Ends the session from outside; the agent is told why. */
  end(error: UnderstudyError): void {
    this.dispatch({ type: 'failed', error });
  }

  requestCut(requestId: string): void {
    this.dispatch({ type: 'cut-wanted', requestId });
  }

  private silent(detail: string): void {
    const error = new UnderstudyError('ERR_CONNECTION_SILENT', detail);
    this.connection.abort();
    this.dispatch({ type: 'disconnected', error });
  }

  private send(message: StagingMessage): void {
    this.connection.send(encodeMessage(message));
    if (this.connection.bufferedBytes <= MAX_UNREAD_BYTES || this.isEnded()) return;
    this.silent('the agent does not read what it is told');
  }

  private arrived(frame: Uint8Array): void {
    if (this.state.phase === 'ended') return;
    this.heartbeat.heard();
    const type = peekType(frame);
    if (type === 'ping' || type === 'pong') {
      this.beat(frame);
      return;
    }
    const contentBytes = type === 'patch' || type === 'pieces' ? peekContentBytes(frame) : 0;
    this.ports.host.received(this, { frameBytes: frame.length, contentBytes });
    if (contentBytes > 0) this.dispatch({ type: 'arrived', contentBytes });
    if (this.state.phase !== 'open' && contentBytes > 0) {
      // Not worth a thread: it comes out of turn.
      this.enqueue(frame.length, Promise.resolve(frame));
      return;
    }
    const verified = contentBytes > 0 ? this.ports.verifier.verify(frame) : Promise.resolve(frame);
    this.enqueue(frame.length, verified);
  }

  private enqueue(bytes: number, frame: Promise<Uint8Array>): void {
    // Looked at in its turn; until then a refusal is not unhandled.
    frame.catch(() => undefined);
    this.inbox.push({ bytes, frame });
    this.inboxBytes += bytes;
    this.hold();
    void this.work();
  }

  /** Answered at once: life is not a matter of turns. */
  private beat(frame: Uint8Array): void {
    try {
      const message = decodeMessage(frame);
      if (message.type === 'ping') this.send({ type: 'pong', id: message.id });
    } catch (error) {
      this.fail(error);
    }
  }

  private hold(): void {
    const wants = this.isPaused ? this.inboxBytes > RESUME_BYTES : this.inboxBytes > PAUSE_BYTES;
    if (wants === this.isPaused) return;
    this.isPaused = wants;
    this.heartbeat.hold(wants);
    if (wants) this.connection.pause();
    else this.connection.resume();
  }

  /** One frame after the other, each when its contents are verified. */
  private async work(): Promise<void> {
    if (this.isWorking) return;
    this.isWorking = true;
    try {
      while (this.state.phase !== 'ended' && !mustWait(this.state)) {
        const next = this.inbox.shift();
        if (next === undefined) break;
        const frame = await next.frame;
        this.inboxBytes -= next.bytes;
        this.hold();
        this.spoken(frame);
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.isWorking = false;
    }
  }

  private spoken(frame: Uint8Array): void {
    if (this.isEnded()) return;
    const message = decodeMessage(frame) as Spoken;
    if (message.type === 'patch' || message.type === 'pieces') {
      this.lent.push({ seq: message.seq, frame });
    }
    const digests =
      message.type === 'commit'
        ? { digests: this.state.volumes.map((_, volume) => this.digests.current(volume)) }
        : {};
    this.dispatch({ type: 'message', message, frameBytes: frame.length, ...digests });
  }

  private isEnded(): boolean {
    return this.state.phase === 'ended';
  }

  private dispatch(event: SessionEvent): void {
    const { state, effects } = reduceSession(this.state, event);
    this.state = state;
    for (const effect of effects) this.perform(effect);
  }

  private perform(effect: SessionEffect): void {
    const { host } = this.ports;
    switch (effect.type) {
      case 'send':
        this.send(effect.message);
        if (effect.message.type === 'stored') this.giveBack(effect.message.seq);
        break;
      case 'open':
        this.opening = this.open(effect.hello);
        break;
      case 'offer':
        this.offer(effect);
        break;
      case 'patch':
        this.count(effect.volume, effect.entries);
        this.stored(this.ingest!.patch(effect.volume, effect.entries, effect.pieces));
        break;
      case 'pieces':
        this.stored(this.ingest!.pieces(effect.pieces));
        break;
      case 'sync':
        this.stored(this.ingest!.durable(), () => this.dispatch({ type: 'durable' }));
        break;
      case 'commit':
        this.commit(effect.request);
        break;
      case 'committed':
        for (const { volume } of effect.request.volumes) this.digests.restart(volume);
        break;
      case 'report':
        host.reported(this, effect.volumes);
        break;
      case 'machine':
        host.examined(this, effect.report);
        break;
      case 'deduped':
        host.deduped(this, effect.hits, effect.bytes);
        break;
      case 'end':
        this.finish(effect.error, effect.isToldWhy);
        break;
    }
  }

  private count(volume: number, entries: readonly IndexedEntry[]): void {
    this.digests.add(volume, encodeEntries(entries));
  }

  /** The batches up to `seq` are durable: nobody looks at their frames any more. */
  private giveBack(seq: number): void {
    for (const each of this.lent) if (each.seq <= seq) this.ports.verifier.release(each.frame);
    this.lent = this.lent.filter((each) => each.seq > seq);
  }

  private async open(hello: Hello): Promise<void> {
    this.server = hello.server;
    const { host, version } = this.ports;
    try {
      const { ingest, sessionId } = await host.open(this, hello);
      this.ingest = ingest;
      this.dispatch({ type: 'opened', sessionId, version, positions: ingest.positions });
      if (this.isOpen) host.opened(this);
    } catch (error) {
      this.fail(error);
    }
  }

  private offer(effect: Extract<SessionEffect, { type: 'offer' }>): void {
    const { seq, volume, entries, synced } = effect;
    this.count(volume, entries);
    this.stored(this.ingest!.offer(volume, entries, synced), ({ need, changed }) =>
      this.dispatch({ type: 'answered', seq, need, changed }),
    );
  }

  private commit(request: CommitRequest): void {
    this.stored(this.ingest!.commit(request), async (outcome) => {
      const settled =
        outcome.kind === 'committed'
          ? this.ports.host.committed(this, outcome.point, request)
          : undefined;
      if (settled !== undefined) await settled;
      this.dispatch({ type: 'commit-done', outcome });
    });
  }

  /** What the store was asked for, and what follows; afterwards there may be room for more. */
  private stored<T>(
    asked: Promise<T>,
    then: (result: T) => void | Promise<void> = () => undefined,
  ): void {
    asked.then(then).then(
      () => this.work(),
      (error) => this.fail(error),
    );
  }

  private fail(cause: unknown): void {
    const error = asError(cause);
    if (
      error.spec.kind === 'corruption' ||
      error.code === 'ERR_BUG' ||
      error.code === 'ERR_STORE_FAILED'
    ) {
      this.ports.host.broken(error);
    }
    this.dispatch({ type: 'failed', error });
  }

  private finish(error: UnderstudyError, isToldWhy: boolean): void {
    this.heartbeat.stop();
    this.helloTimer.cancel();
    this.inbox.length = 0;
    const told = toldError(error);
    if (isToldWhy) this.send({ type: 'refusal', code: told.code, message: told.message });
    this.connection.close(told.message);
    void this.leave(error);
  }

  /** A commit that is under way is waited for: it may have made its point visible. */
  private async leave(error: UnderstudyError): Promise<void> {
    await this.opening;
    try {
      await this.ingest?.close();
    } catch (cause) {
      this.ports.log.error('a session could not be closed', { error: asError(cause).message });
      this.ports.host.broken(asError(cause));
    }
    this.ports.host.closed(this, error);
    this.whenEnded.resolve();
  }
}
