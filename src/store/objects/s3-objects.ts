/**
 * Objects in a bucket, by the S3 API: AWS and what speaks like it. With its neighbours (`s3-*.ts`) the only
 * place that knows the SDK. What the SDK finds by itself (environment, profiles, roles) is used as it is.
 */
import {
  AbortMultipartUploadCommand,
  CopyObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
} from '@aws-sdk/client-s3';
import { UnderstudyError } from '../../base/errors.ts';
import type { ListedObject, ObjectSource, ObjectStore } from './object-store.ts';
import type { RetryWorld } from './retry.ts';
import { S3Connection } from './s3-connection.ts';
import { BadAnswer } from './s3-errors.ts';
import type { S3Settings } from './s3-settings.ts';
import { S3Upload } from './s3-upload.ts';
import { S3Versions } from './s3-versions.ts';

const READ_BACK_BYTES = 8 * 2 ** 20;
/** Buckets do not go in a moment. */
const BUCKET_SEEN_MS = 60_000;

export class S3Objects implements ObjectStore {
  readonly place: string;
  private readonly connection: S3Connection;
  private readonly versions: S3Versions;
  /** When the bucket was last found to be there, by the monotonic clock. */
  private bucketSeenMs = Number.NEGATIVE_INFINITY;

  constructor(settings: S3Settings, world: RetryWorld) {
    this.connection = new S3Connection(settings, world);
    this.place = this.connection.place;
    this.versions = new S3Versions(this.connection);
  }

  put(name: string, source: ObjectSource): Promise<'stored' | 'exists'> {
    const readBack = (bytes: number) => this.blocks(name, bytes);
    return new S3Upload(this.connection, name, source, readBack).run();
  }

  async read(name: string, offset: number, length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const { connection } = this;
    const { answer } = await connection.ask(
      { what: 'read', name },
      async (abortSignal, heard) => {
        const command = new GetObjectCommand({
          ...this.target(name),
          Range: `bytes=${offset}-${offset + length - 1}`,
        });
        const found = await connection.client.send(command, { abortSignal });
        return wholeBody(found, { offset, length }, abortSignal, heard);
      },
      ['beyond-end'],
    );
    return answer ?? new Uint8Array(0);
  }

  async bytes(name: string): Promise<number | null> {
    const { connection } = this;
    const { answer, meaning } = await connection.ask(
      { what: 'look at', name },
      (abortSignal) =>
        connection.client.send(new HeadObjectCommand(this.target(name)), { abortSignal }),
      ['not-found'],
    );
    if (meaning === null) return answer.ContentLength ?? 0;
    // An answer without a body does not tell a missing bucket from a missing object.
    await this.assertBucket();
    return null;
  }

  async *list(prefix: string): AsyncGenerator<ListedObject> {
    const { connection } = this;
    const skip = connection.key('').length;
    let token: string | undefined;
    do {
      const { answer } = await connection.ask({ what: 'list', name: prefix }, (abortSignal) =>
        connection.client.send(
          new ListObjectsV2Command({
            Bucket: connection.settings.bucket,
            Prefix: connection.key(prefix),
            ContinuationToken: token,
          }),
          { abortSignal },
        ),
      );
      for (const { Key, Size, LastModified, StorageClass } of answer!.Contents ?? []) {
        yield {
          name: Key!.slice(skip),
          bytes: Size ?? 0,
          modifiedMs: LastModified?.getTime() ?? 0,
          storageClass: StorageClass ?? 'STANDARD',
        };
      }
      token = answer!.IsTruncated === true ? answer!.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  isLocked(name: string): Promise<boolean> {
    return this.versions.isLocked(name);
  }

  remove(name: string): Promise<'removed' | 'locked'> {
    return this.versions.remove(name);
  }

  async reclass(name: string, storageClass: string): Promise<'moved' | 'unchanged'> {
    if (await this.versions.isLocked(name)) return 'unchanged';
    const { connection } = this;
    const { Bucket, Key } = this.target(name);
    const command = () =>
      new CopyObjectCommand({
        ...{ Bucket, Key, MetadataDirective: 'COPY', StorageClass: storageClass as 'STANDARD' },
        CopySource: [Bucket, ...Key.split('/')].map(encodeURIComponent).join('/'),
      });
    const { meaning } = await connection.ask(
      { what: `move to ${storageClass}`, name },
      (abortSignal) => connection.client.send(command(), { abortSignal }),
      ['not-found'],
    );
    if (meaning !== null) return 'unchanged';
    await this.versions.removeFormer(name);
    return 'moved';
  }

  async clean(): Promise<number> {
    const { connection } = this;
    const { bucket, prefix } = connection.settings;
    let removed = 0;
    for (;;) {
      const { answer } = await connection.ask({ what: 'list uploads to', name: '' }, (signal) =>
        connection.client.send(
          new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: connection.key('') }),
          { abortSignal: signal },
        ),
      );
      const uploads = answer!.Uploads ?? [];
      for (const { Key, UploadId } of uploads) {
        const name = prefix === '' ? Key! : Key!.slice(prefix.length + 1);
        const command = () => new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId });
        await connection.ask(
          { what: 'give up upload of', name },
          (abortSignal) => connection.client.send(command(), { abortSignal }),
          ['no-upload', 'not-found'],
        );
        removed += 1;
      }
      if (answer!.IsTruncated !== true || uploads.length === 0) return removed;
    }
  }

  async close(): Promise<void> {
    this.connection.close();
  }

  private target(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.connection.settings.bucket, Key: this.connection.key(name) };
  }

  private async assertBucket(): Promise<void> {
    const { connection } = this;
    const nowMs = connection.clock.monotonicMs();
    if (nowMs - this.bucketSeenMs < BUCKET_SEEN_MS) return;
    const Bucket = connection.settings.bucket;
    const { meaning } = await connection.ask(
      { what: 'look at', name: '' },
      (abortSignal) => connection.client.send(new HeadBucketCommand({ Bucket }), { abortSignal }),
      ['not-found'],
    );
    if (meaning === null) {
      this.bucketSeenMs = nowMs;
      return;
    }
    throw new UnderstudyError('ERR_OBJECTS_NO_BUCKET', `${this.place}: there is no such bucket`, {
      path: this.place,
    });
  }

  private async *blocks(name: string, bytes: number): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes; at += READ_BACK_BYTES) {
      yield await this.read(name, at, READ_BACK_BYTES);
    }
  }
}

interface Found {
  readonly Body?: unknown;
  readonly ContentLength?: number | undefined;
  readonly ContentRange?: string | undefined;
}

/** The body, all of it: as long as was asked for, or up to the end of the object. */
async function wholeBody(
  { Body, ContentLength, ContentRange }: Found,
  { offset, length }: { offset: number; length: number },
  signal: AbortSignal,
  heard: (bytes: number) => void,
): Promise<Uint8Array> {
  const stream = Body as AsyncIterable<Uint8Array> & { destroy(error?: Error): void };
  signal.addEventListener('abort', () => stream.destroy(), { once: true });
  const total = Number(/\/(\d+)$/.exec(ContentRange ?? '')?.[1] ?? Number.NaN);
  const wanted = Number.isNaN(total) ? (ContentLength ?? length) : Math.min(length, total - offset);
  const whole = new Uint8Array(wanted);
  let at = 0;
  for await (const part of stream) {
    heard(part.length);
    if (at + part.length > wanted) {
      stream.destroy();
      throw new BadAnswer('the answer is longer than what was asked for');
    }
    whole.set(part, at);
    at += part.length;
  }
  if (at === wanted && wanted <= length) return whole;
  throw new BadAnswer(`the answer was cut short: ${at} of ${wanted} bytes`);
}
