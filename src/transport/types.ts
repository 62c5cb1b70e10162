/**
 * A connection as sessions see it: whole frames in both directions, in order, exactly once or not at all.
 * Implemented over WebSocket (`client.ts`, `server.ts`) and in memory (tests, simulator), with one
 * conformance suite.
 *
 * Contract: handlers are never called from within a call of the connection's own methods; `onClosed` is
 * called exactly once, last of all, and tells why; after `close` no other handler is called. A frame
 * handed to `send` belongs to the connection until it has left and must not be changed: `onGone` tells
 * when, unless the connection ends before.
 */
import type { UnderstudyError } from '../base/errors.ts';

export interface Connection {
  /** Address of the other side, for logs. */
  readonly peer: string;
  /** Bytes accepted by `send` and not yet handed to the network. */
  readonly bufferedBytes: number;
  /** Never blocks, never throws; what is sent after the end is dropped. */
  send(frame: Uint8Array, onGone?: () => void): void;
  /** Stops reading: the network holds the other side back. A few frames may still arrive. */
  pause(): void;
  resume(): void;
  /** Sends what is buffered, then ends; without an answer it ends all the same within seconds. */
  close(reason: string): void;
  /** Ends at once; nothing more is sent. */
  abort(): void;
}

export interface ConnectionHandlers {
  /** A client's connection is ready. Never called on the server's side, whose connections are born so. */
  onOpen(): void;
  onMessage(frame: Uint8Array): void;
  /** `bufferedBytes` has fallen below LOW_WATER_BYTES after it was above. */
  onDrained(): void;
  /**
   * ERR_CONNECTION_CLOSED, _LOST, _SILENT (heartbeat), _REFUSED, _ANSWER (not a staging service),
   * ERR_UNAUTHORIZED, ERR_TLS_UNTRUSTED, ERR_TLS_REQUIRED, ERR_PROTOCOL_FRAME. Those that are not
   * retryable (`error.spec.retryable`) will not heal by dialing again.
   */
  onClosed(error: UnderstudyError): void;
}

/** The agent's side. */
export interface Dialer {
  /** Begins a connection; never throws: what goes wrong arrives at `onClosed`. */
  dial(handlers: ConnectionHandlers): Connection;
}

export const LOW_WATER_BYTES = 2 ** 20;
