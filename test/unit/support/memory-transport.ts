/**
 * A network in memory with the contract of `transport/types.ts`: frames arrive in order after a delay of
 * the given clock. It can be cut (both sides learn of it), stalled (nobody learns: half open), refused.
 * The unit tests run on the real clock, the simulator on its virtual one.
 */
import type { Clock } from '../../../src/base/clock.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import {
  type Connection,
  type ConnectionHandlers,
  type Dialer,
  LOW_WATER_BYTES,
} from '../../../src/transport/types.ts';

export type Accept = (connect: (handlers: ConnectionHandlers) => Connection) => void;

export interface MemoryNetwork {
  readonly dialer: Dialer;
  /** Who answers; null refuses connections. */
  listen(accept: Accept | null): void;
  /** Milliseconds that a frame takes. */
  setDelay(delayMs: number): void;
  /** Breaks every connection; both sides learn of it. */
  cut(): void;
  /** While set, frames of open connections vanish and nobody learns of it. */
  stall(isStalled: boolean): void;
}

const ignore: ConnectionHandlers = {
  onOpen: () => undefined,
  onMessage: () => undefined,
  onDrained: () => undefined,
  onClosed: () => undefined,
};

type Delivery =
  | { kind: 'frame'; frame: Uint8Array; onGone?: (() => void) | undefined }
  | { kind: 'end'; reason: string };

class Side implements Connection {
  readonly peer: string;
  bufferedBytes = 0;
  handlers: ConnectionHandlers = ignore;
  other!: Side;
  isEnded = false;
  private readonly net: Network;
  private readonly inbox: Delivery[] = [];
  private isClosing = false;
  private isPaused = false;
  private isHigh = false;

  constructor(net: Network, peer: string) {
    this.net = net;
    this.peer = peer;
  }

  send(frame: Uint8Array, onGone?: () => void): void {
    if (this.isClosing || this.isEnded) return;
    this.bufferedBytes += frame.length;
    if (this.bufferedBytes > LOW_WATER_BYTES) this.isHigh = true;
    this.post({ kind: 'frame', frame, onGone });
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.net.clock.after(0, () => this.read());
  }

  close(reason: string): void {
    if (this.isClosing || this.isEnded) return;
    this.isClosing = true;
    this.post({ kind: 'end', reason });
    this.resume();
    this.net.clock.after(3000, () => this.end('ERR_CONNECTION_CLOSED', 'closed on this side'));
  }

  abort(): void {
    if (this.isEnded) return;
    this.isClosing = true;
    const { clock } = this.net;
    clock.after(0, () => this.end('ERR_CONNECTION_CLOSED', 'closed on this side'));
    clock.after(this.net.delayMs, () => this.other.lost());
  }

  lost(): void {
    this.end('ERR_CONNECTION_LOST', 'connection lost');
  }

  end(code: 'ERR_CONNECTION_CLOSED' | 'ERR_CONNECTION_LOST', message: string): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.net.sides.delete(this);
    this.handlers.onClosed(new UnderstudyError(code, message));
  }

  private post(delivery: Delivery): void {
    const { net, other } = this;
    net.clock.after(net.delayMs, () => {
      if (net.isStalled || other.isEnded) return;
      other.inbox.push(delivery);
      other.read();
    });
  }

  read(): void {
    while (!this.isPaused && !this.isEnded) {
      const next = this.inbox.shift();
      if (next === undefined) return;
      if (next.kind === 'frame') {
        if (!this.isClosing) this.handlers.onMessage(next.frame);
        this.other.left(next.frame.length, next.onGone);
      } else {
        const said = `the other side closed: ${next.reason}`;
        this.end('ERR_CONNECTION_CLOSED', this.isClosing ? 'closed on this side' : said);
        const { other } = this;
        this.net.clock.after(this.net.delayMs, () =>
          other.end('ERR_CONNECTION_CLOSED', 'closed on this side'),
        );
      }
    }
  }

  private left(bytes: number, onGone: (() => void) | undefined): void {
    this.bufferedBytes -= bytes;
    if (onGone !== undefined) {
      this.net.clock.after(0, () => {
        if (!this.isClosing && !this.isEnded) onGone();
      });
    }
    if (!this.isHigh || this.bufferedBytes > LOW_WATER_BYTES) return;
    this.isHigh = false;
    this.net.clock.after(0, () => {
      if (!this.isClosing && !this.isEnded) this.handlers.onDrained();
    });
  }
}

class Network implements MemoryNetwork {
  readonly clock: Clock;
  readonly sides = new Set<Side>();
  readonly dialer: Dialer = { dial: (handlers) => this.dial(handlers) };
  delayMs = 0;
  isStalled = false;
  private accept: Accept | null = null;
  private dialed = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  listen(accept: Accept | null): void {
    this.accept = accept;
  }

  setDelay(delayMs: number): void {
    this.delayMs = delayMs;
  }

  cut(): void {
    for (const side of [...this.sides]) side.lost();
  }

  stall(isStalled: boolean): void {
    this.isStalled = isStalled;
  }

  private dial(handlers: ConnectionHandlers): Connection {
    this.dialed += 1;
    const near = new Side(this, 'memory:staging');
    const far = new Side(this, `memory:agent-${this.dialed}`);
    near.handlers = handlers;
    near.other = far;
    far.other = near;
    this.clock.after(this.delayMs, () => this.meet(near, far));
    return near;
  }

  private meet(near: Side, far: Side): void {
    if (near.isEnded) return;
    if (this.accept === null || this.isStalled) {
      near.isEnded = true;
      near.handlers.onClosed(new UnderstudyError('ERR_CONNECTION_REFUSED', 'nobody listens'));
      return;
    }
    this.sides.add(near).add(far);
    this.accept((handlers) => {
      far.handlers = handlers;
      return far;
    });
    near.handlers.onOpen();
  }
}

export function createMemoryNetwork(clock: Clock): MemoryNetwork {
  return new Network(clock);
}
