/**
 * One connection to staging at a time: greeting, heartbeat, messages in and frames out. What arrives from
 * a connection that was given up is ignored. Holds no policy: when to dial is the state machine's.
 */

import { type ErrorCode, errorCatalogue, UnderstudyError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { decodeMessage, encodeMessage } from '../protocol/codec.ts';
import {
  type AgentMessage,
  type Message,
  PROTOCOL_VERSION,
  type Refusal,
  type StagingMessage,
} from '../protocol/messages.ts';
import { Heartbeat } from '../transport/heartbeat.ts';
import type { Connection } from '../transport/types.ts';
import type { FrameSink } from './outbox.ts';
import type { AgentPorts } from './ports.ts';
import type { AgentState } from './state-types.ts';

export interface SessionEvents {
  onConnected(): void;
  onMessage(message: StagingMessage): void;
  onDrained(): void;
  /** `isFatal`: dialing again cannot help. Not called after `close`. */
  onClosed(error: UnderstudyError, isFatal: boolean): void;
}

const PING_INTERVAL_MS = 2000;
/** Silence after which a connection counts as half open. */
const SILENCE_MS = 6000;

const agentTypes: ReadonlySet<Message['type']> = new Set<Message['type']>([
  'hello',
  'offer',
  'patch',
  'pieces',
  'commit',
  'status',
  'machine',
]);
const isForAgent = (message: Message): message is StagingMessage => !agentTypes.has(message.type);

export class Session implements FrameSink {
  private readonly ports: AgentPorts;
  private readonly events: SessionEvents;
  private connection: Connection | null = null;
  private heartbeat: Heartbeat | null = null;

  constructor(ports: AgentPorts, events: SessionEvents) {
    this.ports = ports;
    this.events = events;
  }

  dial(): void {
    this.close('dialing again');
    let own: Connection | null = null;
    const isCurrent = () => own !== null && own === this.connection;
    own = this.ports.dialer.dial({
      onOpen: () => {
        if (!isCurrent()) return;
        this.heartbeat = this.beat();
        this.events.onConnected();
      },
      onMessage: (frame) => {
        if (isCurrent()) this.receive(frame);
      },
      onDrained: () => {
        if (isCurrent()) this.events.onDrained();
      },
      onClosed: (error) => {
        if (isCurrent()) this.lost(error, !error.spec.retryable);
      },
    });
    this.connection = own;
  }

  greet(state: AgentState): void {
    const { identity, volumes } = this.ports;
    this.sendMessage({
      type: 'hello',
      version: PROTOCOL_VERSION,
      ...identity,
      volumes: state.volumes.map((volume, index) => ({
        volume: volume.name,
        sizeBytes: volume.sizeBytes,
        sectorBytes: volumes[index]!.device.geometry.sectorBytes,
        generation: volume.generation,
        committedEpoch: volume.committedEpoch,
        syncing: volume.committedEpoch === 0,
      })),
    });
  }

  /** A small message, past the queue of batches. */
  sendMessage(message: AgentMessage): void {
    this.connection?.send(encodeMessage(message));
  }

  send(frame: Uint8Array, onGone?: () => void): void {
    this.connection?.send(frame, onGone);
  }

  bufferedBytes(): number {
    return this.connection?.bufferedBytes ?? 0;
  }

  /** Says nothing to the events: whoever closes knows. */
  close(reason: string): void {
    this.end(reason);
  }

  /** The peer broke the protocol: tell it, and end. */
  refuse(detail: string): void {
    this.sendMessage({ type: 'refusal', code: 'ERR_PROTOCOL_MESSAGE', message: detail });
    this.lost(new UnderstudyError('ERR_PROTOCOL_MESSAGE', detail), false);
  }

  /** The peer is alive and gets nowhere. */
  stalled(): void {
    const message = 'staging answers pings and nothing else';
    this.lost(new UnderstudyError('ERR_CONNECTION_SILENT', message), false);
  }

  private receive(frame: Uint8Array): void {
    this.heartbeat?.heard();
    let message: Message;
    try {
      message = decodeMessage(frame);
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      this.refuse(error.message);
      return;
    }
    if (message.type === 'ping') this.sendMessage({ type: 'pong', id: message.id });
    else if (message.type === 'refusal') this.refused(message);
    else if (message.type === 'welcome' && message.version !== PROTOCOL_VERSION) {
      const text = `staging ${message.stagingVersion} speaks version ${message.version} of the protocol`;
      this.refused({ type: 'refusal', code: 'ERR_PROTOCOL_VERSION', message: text });
    } else if (!isForAgent(message)) this.refuse(`staging does not say ${message.type}`);
    else if (message.type !== 'pong') this.events.onMessage(message);
  }

  private refused({ code, message }: Refusal): void {
    const isKnown = code in errorCatalogue;
    const known = isKnown ? (code as ErrorCode) : 'ERR_AGENT_REFUSED';
    const text = isKnown ? message : `${code}: ${message}`;
    const error = new UnderstudyError(known, text);
    this.lost(error, isKnown && !error.spec.retryable);
  }

  private lost(error: UnderstudyError, isFatal: boolean): void {
    this.end(error.message);
    this.events.onClosed(error, isFatal);
  }

  /** Frames that have not left lie in memory that is used again at once: they must not leave any more. */
  private end(reason: string): void {
    const { connection } = this;
    this.connection = null;
    this.heartbeat?.stop();
    this.heartbeat = null;
    if (connection === null) return;
    if (connection.bufferedBytes > 0) connection.abort();
    else connection.close(reason);
  }

  private beat(): Heartbeat {
    return new Heartbeat({
      clock: this.ports.clock,
      intervalMs: PING_INTERVAL_MS,
      limitMs: SILENCE_MS,
      sendPing: (id) => this.sendMessage({ type: 'ping', id }),
      onSilent: (silentMs) => {
        const message = `nothing heard from staging for ${formatDuration(silentMs)}`;
        this.connection?.abort();
        this.lost(new UnderstudyError('ERR_CONNECTION_SILENT', message), false);
      },
    });
  }
}
