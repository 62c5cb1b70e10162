/**
 * QEMU's control socket (QMP): one JSON value a line, one client at a time. Answers come in the order of
 * the commands; events are passed over. A connection that ends fails what still waits.
 */
import { connect, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';

const ANSWER_MS = 30_000;
const MAX_LINE_BYTES = 2 ** 20;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: UnderstudyError): void;
}

const failed = (message: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_FAILED', message, {}, cause);

export class Qmp {
  private readonly socket: Socket;
  private readonly clock: Clock;
  private readonly waiting: Waiting[] = [];
  private readonly greeted = Promise.withResolvers<void>();
  private rest = '';
  private error: UnderstudyError | null = null;

  private constructor(socket: Socket, clock: Clock) {
    this.socket = socket;
    this.clock = clock;
    this.greeted.promise.catch(() => undefined);
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.take(text));
    socket.on('error', (cause) => this.end(failed('QEMU cannot be reached', cause)));
    socket.on('close', () => this.end(failed('QEMU has ended')));
  }

  /** ERR_LAUNCH_FAILED where nobody answers. */
  static async connect(path: string, clock: Clock): Promise<Qmp> {
    const qmp = new Qmp(connect(path), clock);
    await qmp.within(qmp.greeted.promise, 'greeting');
    await qmp.run('qmp_capabilities');
    return qmp;
  }

  /** The command's `return`. ERR_LAUNCH_FAILED with what QEMU says. */
  run<Answer>(command: string, words: Record<string, unknown> = {}): Promise<Answer> {
    if (this.error !== null) return Promise.reject(this.error);
    const answer = new Promise<unknown>((resolve, reject) => {
      this.waiting.push({ resolve, reject });
    });
    this.socket.write(`${JSON.stringify({ execute: command, arguments: words })}\n`);
    return this.within(answer, command) as Promise<Answer>;
  }

  close(): void {
    this.socket.destroy();
  }

  private async within<Value>(promise: Promise<Value>, what: string): Promise<Value> {
    const timer = this.clock.after(ANSWER_MS, () => {
      this.end(failed(`QEMU does not answer (${what})`));
    });
    try {
      return await promise;
    } finally {
      timer.cancel();
    }
  }

  private take(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop()!;
    if (this.rest.length > MAX_LINE_BYTES) this.end(failed('QEMU sends an endless line'));
    for (const line of lines) this.takeLine(line);
  }

  private takeLine(line: string): void {
    if (line.trim() === '') return;
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(line) as Record<string, unknown>;
    } catch (cause) {
      this.end(failed('QEMU does not speak QMP', cause));
      return;
    }
    if ('QMP' in message) this.greeted.resolve();
    if ('return' in message) this.waiting.shift()?.resolve(message.return);
    if ('error' in message) {
      const { desc } = message.error as { desc?: string };
      this.waiting.shift()?.reject(failed(`QEMU: ${desc ?? 'an error'}`));
    }
  }

  private end(error: UnderstudyError): void {
    this.error ??= error;
    this.greeted.reject(this.error);
    for (const each of this.waiting.splice(0)) each.reject(this.error);
    this.socket.destroy();
  }
}
