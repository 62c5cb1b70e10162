/**
 * Reads ranges of an image from staging, for as long as it takes: while staging is being restarted, has no
 * power, or cannot reach its repository, it is asked again each second, and whoever reads waits. That a place of the
 * image is damaged is an answer: waiting would not mend it. The next read of it asks anew.
 */
import { readFile } from 'node:fs/promises';
import { Agent, type IncomingMessage, request } from 'node:http';
import type { Clock } from '../../base/clock.ts';
import { isLossCode } from '../damage.ts';
import type { ImageAddress } from '../launcher.ts';

const RETRY_MS = 1000;
const SILENCE_MS = 60_000;
const CONNECTIONS = 4;
/** What is said of an error is short. */
const MAX_ERROR_BYTES = 16_384;

interface Answer {
  readonly status: number;
  readonly bytes: Buffer;
}

export class ImageSource {
  private readonly address: ImageAddress;
  private readonly clock: Clock;
  private readonly say: (line: string) => void;
  private readonly agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  private lastTrouble = '';

  /** `say`: told when reading stops and when it goes on, and each damaged place that is met. */
  constructor(address: ImageAddress, clock: Clock, say: (line: string) => void) {
    this.address = address;
    this.clock = clock;
    this.say = say;
  }

  /** `length` bytes at `offset`, inside the image; null: they are damaged. Rejects when `signal` aborts. */
  async read(offset: number, length: number, signal: AbortSignal): Promise<Uint8Array | null> {
    if (length === 0) return new Uint8Array(0);
    for (;;) {
      const told = await this.ask(offset, length, signal).catch((error: Error) => error.message);
      signal.throwIfAborted();
      if (typeof told !== 'string') return told;
      this.trouble(`asked again each second: ${told}`);
      await this.pause(signal);
    }
  }

  close(): void {
    this.agent.destroy();
  }

  /** A text: why there is no answer yet. */
  private async ask(
    offset: number,
    length: number,
    signal: AbortSignal,
  ): Promise<Uint8Array | null | string> {
    const { status, bytes } = await this.get(`bytes=${offset}-${offset + length - 1}`, signal);
    if (status === 206 && bytes.length === length) {
      this.trouble('');
      return bytes;
    }
    if (status === 206) return `${bytes.length} bytes instead of ${length}`;
    const { code, message } = errorOf(bytes);
    if (!isLossCode(code)) return `status ${status} ${code} ${message}`;
    this.trouble('');
    this.say(`damaged: ${length} bytes at ${offset}: ${message} (${code})`);
    return null;
  }

  private async get(range: string, signal: AbortSignal): Promise<Answer> {
    const { url, socketPath, cookieFile } = this.address;
    // It is written anew before it expires.
    const cookie = await readFile(cookieFile, 'utf8');
    return new Promise((resolve, reject) => {
      const asked = request({
        ...{ socketPath, path: new URL(url).pathname, agent: this.agent, signal },
        ...{ headers: { cookie, range, host: 'localhost' }, timeout: SILENCE_MS },
      });
      asked.on('timeout', () => asked.destroy(new Error('no answer')));
      asked.on('error', reject);
      asked.on('response', (response) => collect(response).then(resolve, reject));
      asked.end();
    });
  }

  private trouble(line: string): void {
    if (line === this.lastTrouble) return;
    this.say(line === '' ? 'goes on' : line);
    this.lastTrouble = line;
  }

  private pause(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        timer.cancel();
        reject(signal.reason);
      };
      const timer = this.clock.after(RETRY_MS, () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}

async function collect(response: IncomingMessage): Promise<Answer> {
  const status = response.statusCode ?? 0;
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    length += part.length;
    if (status !== 206 && length > MAX_ERROR_BYTES) throw new Error(`status ${status}`);
    parts.push(part);
  }
  return { status, bytes: Buffer.concat(parts) };
}

function errorOf(body: Buffer): { code: string; message: string } {
  try {
    const { error } = JSON.parse(body.toString('utf8')) as { error: Record<string, unknown> };
    return { code: String(error.code), message: String(error.message) };
  } catch {
    // Something else than staging has answered: as good as no answer.
    return { code: '', message: '' };
  }
}
