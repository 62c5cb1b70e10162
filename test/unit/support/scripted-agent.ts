/**
 * An agent that says what a test tells it to, over any transport, and lets the test wait for answers.
 * Answers pings by itself; keeps the content digests as a real one does.
 */
import type { UnderstudyError } from '../../../src/base/errors.ts';
import { encodeEntries } from '../../../src/model/entry-codec.ts';
import { decodeMessage, encodeMessage } from '../../../src/protocol/codec.ts';
import { EpochDigests } from '../../../src/protocol/epoch-digests.ts';
import type {
  AgentMessage,
  CommitVolume,
  Hello,
  HelloVolume,
  StagingMessage,
  Welcome,
} from '../../../src/protocol/messages.ts';
import type { Connection, Dialer } from '../../../src/transport/types.ts';

type Type = StagingMessage['type'];

export const helloOf = (
  server: string,
  volumes: HelloVolume[],
  hardwareId = 'hardware',
): Hello => ({
  type: 'hello',
  version: 1,
  server,
  hardwareId,
  bootId: 'boot',
  agentVersion: '0.0.0',
  volumes,
});

export class ScriptedAgent {
  readonly connection: Connection;
  readonly received: StagingMessage[] = [];
  readonly digests = new EpochDigests();
  closed: UnderstudyError | null = null;
  /** Silent agents do not answer pings. */
  isSilent = false;
  private taken = 0;
  private seq = 0;
  private wake: (() => void)[] = [];

  constructor(dialer: Dialer, onOpen: (agent: ScriptedAgent) => void) {
    this.connection = dialer.dial({
      onOpen: () => onOpen(this),
      onMessage: (frame) => this.arrived(frame),
      onDrained: () => undefined,
      onClosed: (error) => {
        this.closed = error;
        this.notify();
      },
    });
  }

  /** Greets and waits for the answer. */
  static async connect(dialer: Dialer, hello: Hello): Promise<ScriptedAgent> {
    const agent = ScriptedAgent.greet(dialer, hello);
    await agent.next('welcome');
    return agent;
  }

  static greet(dialer: Dialer, hello: Hello): ScriptedAgent {
    return new ScriptedAgent(dialer, (agent) => agent.say(hello));
  }

  /** Offers and patches get the next number where they have none (0). */
  say(message: AgentMessage): void {
    let numbered = message;
    if (message.type === 'offer' || message.type === 'patch') {
      this.seq = message.seq === 0 ? this.seq + 1 : message.seq;
      numbered = { ...message, seq: this.seq };
      this.digests.add(message.volume, encodeEntries(message.entries));
    }
    this.connection.send(encodeMessage(numbered));
  }

  sayFrame(frame: Uint8Array): void {
    this.connection.send(frame);
  }

  commit(timeMs: number, volumes: Omit<CommitVolume, 'contentDigest'>[], requestId = ''): void {
    this.say({
      type: 'commit',
      timeMs,
      cut: { method: 'validated', passes: 1, durationMs: 1 },
      requestId,
      volumes: volumes.map((each) => ({
        ...each,
        contentDigest: this.digests.current(each.volume),
      })),
    });
    for (const { volume } of volumes) this.digests.restart(volume);
  }

  /** The next message of this type; those before it are passed over. Throws when the connection ends. */
  async next<T extends Type>(type: T): Promise<Extract<StagingMessage, { type: T }>> {
    for (;;) {
      while (this.taken < this.received.length) {
        const message = this.received[this.taken]!;
        this.taken += 1;
        if (message.type === type) return message as Extract<StagingMessage, { type: T }>;
      }
      if (this.closed !== null) throw new Error(`no ${type}: ${this.closed.message}`);
      await new Promise<void>((resolve) => this.wake.push(resolve));
    }
  }

  /** The refusal with which the session ends. */
  async refusal(): Promise<string> {
    return (await this.next('refusal')).code;
  }

  async end(): Promise<UnderstudyError> {
    while (this.closed === null) await new Promise<void>((resolve) => this.wake.push(resolve));
    return this.closed;
  }

  get welcome(): Welcome {
    return this.received.find((message) => message.type === 'welcome')!;
  }

  private arrived(frame: Uint8Array): void {
    const message = decodeMessage(frame) as StagingMessage;
    if (message.type === 'ping') {
      if (!this.isSilent) this.say({ type: 'pong', id: message.id });
      return;
    }
    this.received.push(message);
    this.notify();
  }

  private notify(): void {
    for (const wake of this.wake.splice(0)) wake();
  }
}
