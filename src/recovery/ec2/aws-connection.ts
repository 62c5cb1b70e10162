/**
 * One request to AWS, bounded in time and in tries (the SDK's own retries are off). Credentials, region and
 * endpoint are the SDK's usual ones: environment, profiles, roles, AWS_ENDPOINT_URL. Errors leave as
 * UnderstudyErrors, but where the caller asks for their meaning first.
 */

import { EBSClient } from '@aws-sdk/client-ebs';
import { EC2Client } from '@aws-sdk/client-ec2';
import type { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import { awsError, type Meaning, meaningOf, NoAnswer, nameOf } from './aws-errors.ts';
import { defaultRetry, type RetryPolicy, retrying, type World } from './retry.ts';

const CONNECT_MS = 10_000;
/** A block has half a megabyte, and many are on their way at once, perhaps over a slow line. */
const ANSWER_MS = 120_000;
const MAX_SOCKETS = 128;

export interface AwsSettings {
  /** Undefined: from the environment or the profile. */
  readonly region?: string | undefined;
  /** Undefined: AWS_ENDPOINT_URL, or AWS itself. */
  readonly endpoint?: string | undefined;
  readonly retry?: RetryPolicy;
  /** A try that takes longer is given up. */
  readonly answerMs?: number;
}

export interface Asked {
  /** The call, as AWS names it: `PutSnapshotBlock`. */
  readonly call: string;
  /** What it is about, for messages: a snapshot's id. */
  readonly subject: string;
  readonly stop: AbortSignal;
  /** Names of errors that may pass in this very call, besides those that always may. */
  readonly alsoPassing?: RegExp;
  /** Waited for before each try, and no part of its time. */
  readonly turn?: () => Promise<void>;
}

export type Told<T, M extends Meaning> =
  | { readonly answer: T; readonly meaning: null; readonly refusal: null }
  /** `refusal`: what would have been thrown. */
  | { readonly answer: null; readonly meaning: M; readonly refusal: UnderstudyError };

export class AwsConnection {
  readonly ebs: EBSClient;
  readonly ec2: EC2Client;
  readonly world: World;
  private readonly retry: RetryPolicy;
  private readonly answerMs: number;

  constructor(world: World, settings: AwsSettings = {}) {
    this.world = world;
    this.retry = settings.retry ?? defaultRetry;
    this.answerMs = settings.answerMs ?? ANSWER_MS;
    const { endpoint } = settings;
    const region = settings.region ?? defaultRegion(endpoint);
    const shared = {
      ...(endpoint !== undefined && { endpoint }),
      ...(region !== undefined && { region }),
      maxAttempts: 1,
      requestHandler: {
        connectionTimeout: CONNECT_MS,
        httpAgent: { keepAlive: true, maxSockets: MAX_SOCKETS },
        httpsAgent: { keepAlive: true, maxSockets: MAX_SOCKETS },
      },
    };
    this.ebs = new EBSClient(shared);
    this.ec2 = new EC2Client(shared);
  }

  /** Makes the request until it is answered; throws ERR_AWS_*, or the signal's reason. */
  async ask<T>(asked: Asked, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return (await this.askFor(asked, send, [])).answer!;
  }

  /** The same, where some refusals are answers to the caller: they come back as their meaning. */
  async askFor<T, M extends Meaning>(
    asked: Asked,
    send: (signal: AbortSignal) => Promise<T>,
    expected: readonly M[],
  ): Promise<Told<T, M>> {
    const { call, subject, stop, alsoPassing, turn } = asked;
    const mayPass = (error: unknown) =>
      meaningOf(error) === 'passing' || alsoPassing?.test(nameOf(error)) === true;
    try {
      const once = async () => {
        await turn?.();
        return this.once(stop, send);
      };
      const answer = await retrying(this.world, this.retry, stop, mayPass, once);
      return { answer, meaning: null, refusal: null };
    } catch (error) {
      stop.throwIfAborted();
      const meaning = meaningOf(error);
      const refusal = awsError(error, call, subject);
      if ((expected as readonly Meaning[]).includes(meaning)) {
        return { answer: null, meaning: meaning as M, refusal };
      }
      throw refusal;
    }
  }

  close(): void {
    this.ebs.destroy();
    this.ec2.destroy();
  }

  private async once<T>(stop: AbortSignal, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController();
    const { promise: cut, reject } = Promise.withResolvers<never>();
    const end = (reason: unknown) => {
      reject(reason);
      abort.abort(reason);
    };
    const late = () => end(new NoAnswer(`no answer for ${formatDuration(this.answerMs)}`));
    const timer = this.world.clock.after(this.answerMs, late);
    const stopped = () => end(stop.reason);
    stop.addEventListener('abort', stopped, { once: true });
    try {
      return await Promise.race([send(abort.signal), cut]);
    } finally {
      timer.cancel();
      stop.removeEventListener('abort', stopped);
    }
  }
}

/** A service that is named by its URL mostly has no regions; the signature needs one all the same. */
function defaultRegion(endpoint: string | undefined): string | undefined {
  const { AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL } = process.env;
  const named = endpoint ?? AWS_ENDPOINT_URL;
  return AWS_REGION ?? AWS_DEFAULT_REGION ?? (named === undefined ? undefined : 'us-east-1');
}
