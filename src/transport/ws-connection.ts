/**
 * One WebSocket as a Connection, for both sides. One binary message is one frame; text, fragments beyond
 * ws's own bounds and messages longer than a frame may be end the connection with ERR_PROTOCOL_FRAME.
 * Heartbeats and meaning are the sessions'.
 */
import type { RawData, WebSocket } from 'ws';
import { UnderstudyError } from '../base/errors.ts';
import { noteGarbage } from '../base/memory.ts';
import { MAX_FRAME_BYTES } from '../protocol/limits.ts';
import { type Connection, type ConnectionHandlers, LOW_WATER_BYTES } from './types.ts';

/** Options of both sides. Contents are compressed already; a close that is not answered ends by itself. */
export const socketOptions = {
  perMessageDeflate: false,
  maxPayload: MAX_FRAME_BYTES,
  skipUTF8Validation: true,
  closeTimeout: 3000,
} as const;

const NORMAL_CLOSURE = 1000;
const MAX_REASON_BYTES = 120;
/** RFC 6455 allows 123 bytes of reason. */
function clipReason(reason: string): string {
  const bytes = Buffer.from(reason, 'utf8');
  if (bytes.length <= MAX_REASON_BYTES) return reason;
  return new TextDecoder().decode(bytes.subarray(0, MAX_REASON_BYTES)).replace(/\ufffd+$/, '');
}

/** What ended an open connection, in our words. */
function endOf(error: Error | null, code: number, reason: string): UnderstudyError {
  if (error !== null && String((error as NodeJS.ErrnoException).code).startsWith('WS_ERR_')) {
    return new UnderstudyError('ERR_PROTOCOL_FRAME', `bad frame: ${error.message}`, {}, error);
  }
  if (error !== null) {
    const message = `connection lost: ${error.message}`;
    return new UnderstudyError('ERR_CONNECTION_LOST', message, {}, error);
  }
  if (code === 1006) return new UnderstudyError('ERR_CONNECTION_LOST', 'connection lost');
  const why = reason === '' ? `code ${code}` : reason;
  return new UnderstudyError('ERR_CONNECTION_CLOSED', `the other side closed: ${why}`);
}

export class WsConnection implements Connection {
  readonly peer: string;
  private readonly socket: WebSocket;
  private readonly handlers: ConnectionHandlers;
  private failure: Error | null = null;
  private isHigh = false;
  private isClosedHere = false;
  private isEnded = false;

  constructor(socket: WebSocket, peer: string, handlers: ConnectionHandlers) {
    this.socket = socket;
    this.peer = peer;
    this.handlers = handlers;
    socket.binaryType = 'nodebuffer';
    socket.on('message', (data, isBinary) => this.received(data, isBinary));
    socket.on('error', (error) => {
      this.failure ??= error;
    });
    socket.on('close', (code, reason) => this.ended(code, reason.toString('utf8')));
  }

  get bufferedBytes(): number {
    return this.socket.bufferedAmount;
  }

  send(frame: Uint8Array, onGone?: () => void): void {
    const { socket } = this;
    if (socket.readyState !== socket.OPEN || this.isClosedHere) return;
    socket.send(frame, { binary: true }, (error) => {
      this.sent();
      if (!error && !this.isClosedHere) onGone?.();
    });
    if (socket.bufferedAmount > LOW_WATER_BYTES) this.isHigh = true;
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  close(reason: string): void {
    this.isClosedHere = true;
    // A paused socket would never see the other side's answer.
    this.socket.resume();
    this.socket.close(NORMAL_CLOSURE, clipReason(reason));
  }

  abort(): void {
    this.isClosedHere = true;
    this.socket.terminate();
  }

  /** Ends a connection for a reason of our own, which `onClosed` tells. */
  fail(error: UnderstudyError): void {
    if (!(this.failure instanceof UnderstudyError)) this.failure = error;
    this.socket.terminate();
  }

  private received(data: RawData, isBinary: boolean): void {
    if (this.isClosedHere || this.failure !== null) return;
    if (!isBinary || !(data instanceof Uint8Array)) {
      this.fail(new UnderstudyError('ERR_PROTOCOL_FRAME', 'bad frame: a text message'));
      return;
    }
    noteGarbage(data.length);
    this.handlers.onMessage(data);
  }

  private sent(): void {
    if (!this.isHigh || this.isClosedHere || this.socket.bufferedAmount > LOW_WATER_BYTES) return;
    this.isHigh = false;
    this.handlers.onDrained();
  }

  private ended(code: number, reason: string): void {
    if (this.isEnded) return;
    this.isEnded = true;
    const { failure } = this;
    if (this.isClosedHere) {
      this.handlers.onClosed(new UnderstudyError('ERR_CONNECTION_CLOSED', 'closed on this side'));
    } else if (failure instanceof UnderstudyError) {
      this.handlers.onClosed(failure);
    } else {
      this.handlers.onClosed(endOf(failure, code, reason));
    }
  }
}
