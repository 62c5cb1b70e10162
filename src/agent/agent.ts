/**
 * The agent's core: feeds the pure state machine with what happens and performs what it asks for. Holds
 * no decisions of its own. Runs on injected ports (`ports.ts`), so that the simulator drives the very same
 * code through virtual time.
 */
import type { Timer } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import type { MachineReport } from '../model/machine.ts';
import type { Engine, FilledBuffer, PassResult, ReadFault } from '../native/types.ts';
import type { Commit, StagingMessage } from '../protocol/messages.ts';
import { admitSize } from './admission.ts';
import { BufferHolds } from './buffer-holds.ts';
import { Feeder } from './feeder.ts';
import { readHealth } from './health.ts';
import { Outbox } from './outbox.ts';
import type { AgentPorts } from './ports.ts';
import { nextTickMs, reduce, startState } from './replication-state.ts';
import { type AgentStatus, agentStatus, type RefusalReport, wireStatus } from './report.ts';
import { Session } from './session.ts';
import { type SliceOutcome, Slices } from './slices.ts';
import { StallWatch } from './stall-watch.ts';
import type { AgentEvent, AgentState, Effect, Instant, VolumeHealth } from './state-types.ts';

const STATUS_INTERVAL_MS = 2000;

export interface Agent {
  start(): void;
  status(): AgentStatus;
  /** The state machine's state, for tests and for the simulator's checks. */
  readonly state: AgentState;
  /** What the machine is, for staging: now, and at the begin of each later session. */
  tellMachine(report: MachineReport): void;
  /** Ends the session and the engine; what is pinned goes on tracking. */
  close(): Promise<void>;
}

export function createAgent(ports: AgentPorts): Agent {
  return new AgentCore(ports);
}

class AgentCore implements Agent {
  state: AgentState;
  private readonly ports: AgentPorts;
  private readonly engine: Engine;
  private readonly holds: BufferHolds;
  private readonly outbox: Outbox;
  private readonly feeder: Feeder;
  private readonly slices: Slices;
  private readonly session: Session;
  private readonly events: AgentEvent[] = [];
  private isDispatching = false;
  private isClosed = false;
  private closing: Promise<void> | null = null;
  private timer: Timer | null = null;
  private timerAtMs = 0;
  private nextStatusMs = 0;
  private readonly stall = new StallWatch();
  private cuts = 0;
  private lastError: UnderstudyError | null = null;
  private machine: MachineReport | null = null;
  private refusal: RefusalReport | null = null;

  constructor(ports: AgentPorts) {
    this.ports = ports;
    const starts = ports.volumes.map(({ name, device, tracked, isScanned }) => ({
      name,
      sizeBytes: device.geometry.sizeBytes,
      generation: tracked.generation,
      committedEpoch: tracked.committedEpoch,
      isTakenOver: !tracked.fresh,
      isScanned,
    }));
    this.state = startState(starts, ports.settings, ports.buffers.length);
    this.engine = ports.createEngine({
      onFilled: (filled) => this.guard(() => this.filled(filled)),
      onDone: (result, faults) => {
        this.jobDone(result, faults).catch((error) => this.fail(error));
      },
    });
    this.holds = new BufferHolds(ports.buffers.length, (buffer) => this.release(buffer));
    this.outbox = new Outbox(
      ports.clock,
      new TokenBucket(ports.bandwidth, ports.clock.monotonicMs()),
    );
    this.feeder = new Feeder({
      pipeline: ports.pipeline,
      outbox: this.outbox,
      holds: this.holds,
      sizeBytes: (volume) => this.state.volumes[volume]!.sizeBytes,
      onSyncSent: (volume, chunk) => this.dispatch({ type: 'sync-sent', volume, chunk }),
      onFailure: (error) => this.fail(error),
    });
    this.slices = new Slices(ports.volumes, this.engine, this.feeder, {
      buffers: ports.settings.syncBuffers,
      bufferBytes: ports.buffers[0]!.length,
    });
    this.session = new Session(ports, {
      onConnected: () => this.dispatch({ type: 'connected' }),
      onMessage: (message) => this.guard(() => this.received(message)),
      onDrained: () => this.guard(() => this.outbox.pump()),
      onClosed: (error, isFatal) => this.closed(error, isFatal),
    });
  }

  start(): void {
    this.dispatch({ type: 'start' });
  }

  status(): AgentStatus {
    return agentStatus(this.state, this.now(), {
      ports: this.ports,
      counts: this.feeder.counts,
      wireBytes: this.outbox.sentBytes,
      cuts: this.cuts,
      pid: this.ports.pid,
      refused: this.refusal,
    });
  }

  tellMachine(report: MachineReport): void {
    this.machine = report;
    this.guard(() => this.sayMachine());
  }

  private sayMachine(): void {
    if (this.machine === null || this.state.connection.kind !== 'open') return;
    this.session.sendMessage({ type: 'machine', report: this.machine });
  }

  close(): Promise<void> {
    if (!this.isClosed) this.dispatch({ type: 'close' });
    this.isClosed = true;
    this.timer?.cancel();
    this.closing ??= this.engine.close();
    return this.closing;
  }

  private now(): Instant {
    const { clock } = this.ports;
    return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
  }

  /** Events that come up while one is handled wait for their turn. */
  private dispatch(event: AgentEvent): void {
    this.events.push(event);
    if (this.isDispatching || this.isClosed) return;
    this.isDispatching = true;
    try {
      for (let next = this.events.shift(); next !== undefined; next = this.events.shift()) {
        const step = reduce(this.state, next, this.now());
        this.state = step.state;
        for (const effect of step.effects) this.perform(effect);
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.isDispatching = false;
    }
    this.arm();
  }

  private guard(run: () => void): void {
    if (this.isClosed) return;
    try {
      run();
    } catch (error) {
      this.fail(error);
    }
  }

  /** A defect or a broken native layer: the state is not to be trusted any more. */
  private fail(error: unknown): void {
    if (this.isClosed) return;
    this.giveUp(
      error instanceof UnderstudyError
        ? error
        : new UnderstudyError('ERR_BUG', 'the agent failed', {}, error),
    );
  }

  private giveUp(error: UnderstudyError): void {
    this.isClosed = true;
    this.timer?.cancel();
    this.session.close(error.message);
    this.feeder.reset();
    this.ports.onGivenUp(error);
  }

  private arm(): void {
    if (this.isClosed || this.state.isClosing) return;
    const now = this.now();
    const atMs = nextTickMs(this.state, now);
    if (this.timer !== null && this.timerAtMs === atMs) return;
    this.timer?.cancel();
    this.timerAtMs = atMs;
    this.timer = this.ports.clock.after(Math.max(0, atMs - now.monotonicMs), () => {
      this.timer = null;
      this.tick();
    });
  }

  private tick(): void {
    this.dispatch({ type: 'tick' });
    const now = this.now().monotonicMs;
    if (this.state.connection.kind !== 'open') return;
    this.watch(now);
    if (now < this.nextStatusMs) return;
    this.nextStatusMs = now + STATUS_INTERVAL_MS;
    this.session.sendMessage({ type: 'status', volumes: wireStatus(this.state) });
  }

  private watch(nowMs: number): void {
    if (!this.feeder.isWaiting && this.state.cut.kind !== 'committing') this.stall.progress(nowMs);
    else if (this.stall.isStalled(nowMs)) this.session.stalled();
  }

  private perform(effect: Effect): void {
    const { engine, session } = this;
    switch (effect.type) {
      case 'dial':
        session.dial();
        break;
      case 'greet':
        session.greet(this.state);
        break;
      case 'hang-up':
        session.close(effect.reason);
        this.slices.reset();
        this.feeder.reset();
        break;
      case 'sync':
        void this.sync(effect);
        break;
      case 'drain':
        engine.drain(effect.job, effect.volumes);
        break;
      case 'cut':
        engine.cut(effect.job, effect.volumes, effect.deadlineMs);
        break;
      case 'commit':
        this.commit(effect);
        break;
      case 'pend':
        engine.pend(effect.volume, effect.extents);
        break;
      case 'pend-outstanding':
        engine.pendOutstanding(effect.volume);
        break;
      case 'acknowledge':
        this.acknowledge(effect.volume, effect.epoch);
        break;
      case 'renew':
        this.renew(effect.volume, effect.reason);
        break;
      case 'observe':
        this.observe();
        break;
      case 'log':
        this.ports.log[effect.level](effect.message, effect.fields);
        break;
      case 'give-up':
        this.giveUp(this.lastError ?? new UnderstudyError('ERR_AGENT_REFUSED', effect.reason));
        break;
      case 'stopped':
        break;
    }
  }

  private async sync(effect: Extract<Effect, { type: 'sync' }>): Promise<void> {
    const { job, volume } = effect;
    const { sizeBytes } = this.state.volumes[volume]!;
    try {
      const isWanted = () => this.state.job?.kind === 'sync' && this.state.job.id === job;
      const outcome = await this.slices.begin(effect, sizeBytes, isWanted);
      if (outcome !== null) this.syncDone(job, outcome);
    } catch (error) {
      this.fail(error);
    }
  }

  private syncDone(job: number, outcome: SliceOutcome): void {
    const { health, freeBuffers } = this.readings();
    this.dispatch({ type: 'sync-done', job, ...outcome, health, freeBuffers });
  }

  private filled(filled: FilledBuffer): void {
    const { job } = this.state;
    if (job?.kind === 'sync') this.slices.filled(filled);
    else if (job?.kind === 'drain' || job?.kind === 'cut') this.feeder.feedPatches(filled);
    else this.feeder.discard(filled);
  }

  private async jobDone(result: PassResult, faults: readonly ReadFault[]): Promise<void> {
    if (this.isClosed) return;
    if (this.state.job?.kind === 'sync') {
      const outcome = await this.slices.end(result.job, faults);
      if (!this.isClosed) this.syncDone(result.job, outcome);
      return;
    }
    const { health, freeBuffers } = this.readings();
    this.dispatch({ type: 'job-done', result, faults, health, freeBuffers });
  }

  private observe(): void {
    const { health, freeBuffers } = this.readings();
    this.dispatch({ type: 'observed', health, freeBuffers });
  }

  private readings(): { health: VolumeHealth[]; freeBuffers: number } {
    const health = this.ports.volumes.map((volume, index) =>
      readHealth(this.engine, index, volume, this.state.volumes[index]!.health),
    );
    return { health, freeBuffers: this.holds.free };
  }

  /** Tells the state machine when a slice of a sync has room again. */
  private release(buffer: number): void {
    if (this.isClosed) return;
    this.engine.release(buffer);
    const { freeBuffers, settings } = this.state;
    const isEnough = this.holds.free >= settings.syncBuffers;
    if (isEnough && freeBuffers < settings.syncBuffers) {
      this.dispatch({ type: 'freed', freeBuffers: this.holds.free });
    }
  }

  private commit(effect: Extract<Effect, { type: 'commit' }>): void {
    this.feeder.commit({ ...effect, volumes: effect.volumes }, (sent: Commit) =>
      this.dispatch({ type: 'commit-sent', volumes: sent.volumes }),
    );
  }

  private acknowledge(volume: number, epoch: number): void {
    this.feeder.digests.restart(volume);
    if (!this.ports.volumes[volume]!.isScanned) this.engine.committed(volume, epoch);
  }

  private renew(volume: number, reason: string): void {
    try {
      const { generation, sizeBytes } = this.newGeneration(volume, reason);
      this.dispatch({ type: 'renewed', volume, generation, sizeBytes });
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.spec.kind === 'bug') throw error;
      this.dispatch({ type: 'renewal-failed', volume, reason: error.message });
    }
  }

  /** Of what has the volume's path now: what was open may be gone, or another's. */
  private newGeneration(volume: number, reason: string) {
    this.ports.volumes[volume]!.device.reopen();
    const { tracked, geometry } = this.engine.renew(volume, reason);
    admitSize(tracked.path, geometry.sizeBytes);
    return { generation: tracked.generation, sizeBytes: geometry.sizeBytes };
  }

  private received(message: StagingMessage): void {
    this.stall.progress(this.now().monotonicMs);
    switch (message.type) {
      case 'welcome':
        this.refusal = null;
        this.outbox.open(this.session, message.windowBytes);
        this.dispatch({ type: 'welcome', volumes: message.volumes });
        this.sayMachine();
        break;
      case 'answer':
        if (!this.feeder.answered(message)) this.session.refuse('an answer that fits no offer');
        break;
      case 'stored':
        this.outbox.stored(message.seq);
        break;
      case 'committed':
        this.cuts += 1;
        this.dispatch(message);
        break;
      case 'missing':
        this.dispatch(message);
        break;
      case 'cut-request':
        this.dispatch({ type: 'cut-requested', requestId: message.requestId });
        break;
      default:
        break;
    }
  }

  private closed(error: UnderstudyError, isFatal: boolean): void {
    if (this.isClosed) return;
    this.feeder.reset();
    this.slices.reset();
    this.lastError = error;
    const reason = `${error.code}: ${error.message}`;
    const isOther = error.code === 'ERR_OTHER_HARDWARE';
    if (isOther) this.refused(error);
    const mayBeAdmitted = isOther && this.ports.ifRefused !== 'exit';
    const random = this.ports.random();
    this.dispatch({ type: 'disconnected', reason, isFatal, mayBeAdmitted, random });
  }

  /** Said loudly once, then shown by the status: this machine replicates nothing. */
  private refused({ code, message, spec: { hint } }: UnderstudyError): void {
    const since = new Date(this.now().wallMs).toISOString();
    if (this.refusal === null) {
      const text = 'staging refuses this machine: nothing of it is replicated';
      this.ports.log.error(text, { code, reason: message, hint });
    }
    this.refusal = { code, message, since: this.refusal?.since ?? since };
  }
}
