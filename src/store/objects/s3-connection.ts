/**
 * One request to the service, bounded: in time by a timer, in bytes a second by the rate limit, in tries by
 * the retry policy (the SDK's own retries are off). Errors leave as UnderstudyErrors, but where the caller
 * asks for their meaning first.
 */
import { S3Client } from '@aws-sdk/client-s3';
import type { Clock } from '../../base/clock.ts';
import { RateLimit } from './rate-limit.ts';
import { type RetryWorld, retrying } from './retry.ts';
import { BadAnswer, type Meaning, meaningOf, objectsError } from './s3-errors.ts';
import type { S3Settings } from './s3-settings.ts';

const CONNECT_MS = 10_000;
/** Beside those that read: for what is put, listed and renewed meanwhile. */
const OTHER_SOCKETS = 8;

export interface Asked {
  /** A verb for messages: `put`. */
  readonly what: string;
  /** Of the object, relative to the prefix; empty for the place itself. */
  readonly name: string;
  /** Bytes that will be sent. */
  readonly bytes?: number;
  /** Tried once only: nothing depends on it. */
  readonly isOnce?: boolean;
}

/** `heard` is to be told of the bytes of the answer as they come: then it is waited for. */
export type Send<T> = (signal: AbortSignal, heard: (bytes: number) => void) => Promise<T>;

export class S3Connection {
  readonly settings: S3Settings;
  readonly place: string;
  readonly client: S3Client;
  readonly clock: Clock;
  private readonly world: RetryWorld;
  private readonly rate: RateLimit;

  constructor(settings: S3Settings, world: RetryWorld) {
    const { endpoint, bucket, prefix } = settings;
    this.settings = settings;
    this.place = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}`;
    this.world = world;
    this.clock = world.clock;
    this.rate = new RateLimit(settings.bytesPerSecond, world.clock);
    const maxSockets = settings.connections + OTHER_SOCKETS;
    this.client = new S3Client({
      ...(endpoint !== undefined && { endpoint, forcePathStyle: true }),
      ...regionFor(endpoint),
      maxAttempts: 1,
      // An answer "go on" that never comes would hold every put up.
      expectContinueHeader: false,
      // What is read is checked by the store, content by content; services are at odds over checksums of
      // objects that came in parts.
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: {
        connectionTimeout: CONNECT_MS,
        httpAgent: { keepAlive: true, maxSockets },
        httpsAgent: { keepAlive: true, maxSockets },
      },
    });
  }

  key(name: string): string {
    const { prefix } = this.settings;
    return prefix === '' ? name : `${prefix}/${name}`;
  }

  /**
   * Makes the request until it is answered. `expected`: meanings that are answers to the caller; they come
   * back as such, all others are thrown.
   */
  async ask<T, M extends Meaning = never>(
    asked: Asked,
    send: Send<T>,
    expected: readonly M[] = [],
  ): Promise<{ answer: T; meaning: null } | { answer: null; meaning: M }> {
    const isExpected = (meaning: Meaning): meaning is M =>
      (expected as readonly Meaning[]).includes(meaning);
    const mayPass = (error: unknown) => {
      const meaning = meaningOf(error);
      return (meaning === 'passing' || meaning === 'collided') && !isExpected(meaning);
    };
    try {
      const { retry } = this.settings;
      const policy = asked.isOnce === true ? { ...retry, tries: 1 } : retry;
      const answer = await retrying(this.world, policy, mayPass, () => this.once(asked, send));
      return { answer, meaning: null };
    } catch (error) {
      const meaning = meaningOf(error);
      if (isExpected(meaning)) return { answer: null, meaning };
      throw objectsError(error, { place: this.place, ...asked });
    }
  }

  close(): void {
    this.client.destroy();
  }

  private async once<T>(asked: Asked, send: Send<T>): Promise<T> {
    await this.rate.take(asked.bytes ?? 0);
    const { timeoutMs: shortMs, slowestBytesPerSecond } = this.settings;
    const timeoutMs = Math.round(shortMs + ((asked.bytes ?? 0) * 1000) / slowestBytesPerSecond);
    const abort = new AbortController();
    const { promise: late, reject } = Promise.withResolvers<never>();
    const arm = () =>
      this.clock.after(timeoutMs, () => {
        const error = new BadAnswer(`no answer for ${timeoutMs} ms`);
        reject(error);
        abort.abort(error);
      });
    let timer = arm();
    const heard = (bytes: number) => {
      if (abort.signal.aborted) return;
      timer.cancel();
      timer = arm();
      this.rate.spend(bytes);
    };
    try {
      return await Promise.race([send(abort.signal, heard), late]);
    } finally {
      timer.cancel();
    }
  }
}

/** A service that is named by its URL mostly has no regions; the signature needs one all the same. */
function regionFor(endpoint: string | undefined): { region?: string } {
  const { AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 } = process.env;
  const region = AWS_REGION ?? AWS_DEFAULT_REGION;
  if (region !== undefined) return { region };
  const isNamed = (endpoint ?? AWS_ENDPOINT_URL ?? AWS_ENDPOINT_URL_S3) !== undefined;
  return isNamed ? { region: 'us-east-1' } : {};
}
