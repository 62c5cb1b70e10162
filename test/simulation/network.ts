/**
 * The simulated network between one agent and one staging service: frames take a while, in order; a
 * link can be cut (both sides are told), go half open (nobody is told, nothing arrives), refuse, and be
 * slow. Implements the Connection contract of `src/transport/types.ts` in virtual time.
 */
import type { Clock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import {
  type Connection,
  type ConnectionHandlers,
  type Dialer,
  LOW_WATER_BYTES,
} from '../../src/transport/types.ts';
import type { Random } from './random.ts';

export type Acceptor = (connection: Connection) => ConnectionHandlers;

/** One direction of a link: a queue of frames, delivered one after the other. */
class SimulatedEnd implements Connection {
  readonly peer: string;
  bufferedBytes = 0;
  handlers: ConnectionHandlers | null = null;
  other!: SimulatedEnd;
  private readonly network: SimulatedNetwork;
  private isOpen = true;
  private hasGap = false;
  private isPaused = false;
  private readonly inbox: Uint8Array[] = [];
  private lastArrivalMs = 0;
  private isDraining = false;

  constructor(network: SimulatedNetwork, peer: string) {
    this.network = network;
    this.peer = peer;
  }

  send(frame: Uint8Array, onGone?: () => void): void {
    if (!this.isOpen) return;
    const { clock } = this.network;
    this.bufferedBytes += frame.length;
    if (this.bufferedBytes > LOW_WATER_BYTES) this.isDraining = true;
    const copy = frame.slice();
    const arrival = clock.monotonicMs() + this.network.delayMs(frame.length);
    this.lastArrivalMs = Math.max(this.lastArrivalMs, arrival);
    clock.after(this.lastArrivalMs - clock.monotonicMs(), () => {
      // No stream goes on after a gap: what follows a lost frame is lost too.
      if (this.network.isHalfOpen) this.hasGap = true;
      if (this.hasGap || !this.isOpen) return;
      this.bufferedBytes -= copy.length;
      if (this.isDraining && this.bufferedBytes <= LOW_WATER_BYTES) {
        this.isDraining = false;
        this.handlers?.onDrained();
      }
      onGone?.();
      this.other.arrive(copy);
    });
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    this.later(() => this.deliver());
  }

  close(reason: string): void {
    this.later(
      () => this.end(new UnderstudyError('ERR_CONNECTION_CLOSED', reason)),
      this.closeMs(),
    );
  }

  abort(): void {
    this.later(() => this.end(new UnderstudyError('ERR_CONNECTION_CLOSED', 'aborted')));
  }

  /** The link breaks: both ends hear of it, unless it is half open. */
  end(error: UnderstudyError): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    const { handlers } = this;
    this.handlers = null;
    handlers?.onClosed(error);
    if (this.network.isHalfOpen) return;
    this.later(() =>
      this.other.end(new UnderstudyError('ERR_CONNECTION_LOST', 'the other side went away')),
    );
  }

  /** A process died: its end says nothing to itself any more. */
  kill(): void {
    this.handlers = null;
    this.end(new UnderstudyError('ERR_CONNECTION_LOST', 'killed'));
  }

  private closeMs(): number {
    return Math.max(0.001, this.lastArrivalMs - this.network.clock.monotonicMs() + 0.001);
  }

  private arrive(frame: Uint8Array): void {
    if (!this.isOpen) return;
    this.inbox.push(frame);
    this.deliver();
  }

  private deliver(): void {
    while (!this.isPaused && this.isOpen && this.handlers !== null) {
      const frame = this.inbox.shift();
      if (frame === undefined) return;
      this.handlers.onMessage(frame);
    }
  }

  private later(run: () => void, delayMs = 0.001): void {
    this.network.clock.after(delayMs, run);
  }
}

export class SimulatedNetwork implements Dialer {
  readonly clock: Clock;
  isHalfOpen = false;
  isDown = false;
  /** Bytes per millisecond. */
  rate = 20_000;
  /** The listening service; null while it is down. */
  acceptor: Acceptor | null = null;
  dials = 0;
  private readonly random: Random;
  private link: { agent: SimulatedEnd; staging: SimulatedEnd } | null = null;

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.random = random;
  }

  delayMs(bytes: number): number {
    return this.random.between(0.1, 3) + bytes / this.rate;
  }

  dial(handlers: ConnectionHandlers): Connection {
    this.dials += 1;
    const agent = new SimulatedEnd(this, 'staging');
    const staging = new SimulatedEnd(this, 'agent');
    agent.other = staging;
    staging.other = agent;
    agent.handlers = handlers;
    this.clock.after(this.delayMs(0), () => {
      if (this.isDown || this.isHalfOpen || this.acceptor === null) {
        agent.end(new UnderstudyError('ERR_CONNECTION_REFUSED', 'nobody listens'));
        return;
      }
      this.link = { agent, staging };
      staging.handlers = this.acceptor(staging);
      agent.handlers?.onOpen();
    });
    return agent;
  }

  cut(): void {
    this.link?.agent.end(new UnderstudyError('ERR_CONNECTION_LOST', 'the line was cut'));
  }

  killAgent(): void {
    this.link?.agent.kill();
  }

  killStaging(): void {
    this.link?.staging.kill();
  }
}
