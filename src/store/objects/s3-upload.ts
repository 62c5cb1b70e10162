/**
 * Putting one object: whole, or in parts where it is large. Create-once by If-None-Match, so that of two
 * who put under one name one wins, and nothing that is there is changed. A name that is taken is looked at:
 * an answer may have been lost, and then it is our own bytes that are there.
 *
 * Parts are read from the source again for each try, and the upload is given up where it fails: parts that
 * are left lying are paid for. Every part goes with its SHA-256, which the service checks.
 */
import { createHash } from 'node:crypto';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { UnderstudyError } from '../../base/errors.ts';
import type { ObjectSource } from './object-store.ts';
import type { S3Connection } from './s3-connection.ts';
import { isLockable, kindOf } from './s3-settings.ts';

/** Parts under way at a time. */
const PARALLEL_PARTS = 3;
/** So often an upload in parts is begun when others collide with it. */
const MAX_UPLOADS = 4;
const META_SHA256 = 'sha256';

type Put = 'stored' | 'exists';
/** 'again': something was in the way; the whole upload must be made once more. */
type PutTry = Put | 'again';

const sha256Of = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

export class S3Upload {
  private readonly connection: S3Connection;
  private readonly name: string;
  private readonly source: ObjectSource;
  /** Reads the object back, for services that keep no metadata. */
  private readonly readBack: (bytes: number) => AsyncIterable<Uint8Array>;

  constructor(
    connection: S3Connection,
    name: string,
    source: ObjectSource,
    readBack: (bytes: number) => AsyncIterable<Uint8Array>,
  ) {
    this.connection = connection;
    this.name = name;
    this.source = source;
    this.readBack = readBack;
  }

  async run(): Promise<Put> {
    const { multipartBytes } = this.connection.settings;
    for (let tries = 1; tries <= MAX_UPLOADS; tries += 1) {
      const isSmall = this.source.bytes <= multipartBytes;
      const result = isSmall ? await this.whole() : await this.inParts();
      if (result !== 'again') return result;
    }
    const message = `put ${this.connection.place}/${this.name}: others put it at the same time`;
    throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', message, { path: this.name });
  }

  private target() {
    const { connection, name } = this;
    return { Bucket: connection.settings.bucket, Key: connection.key(name) };
  }

  /** What is said of the object when it is made. */
  private attributes(sha256: Buffer) {
    const { settings, clock } = this.connection;
    const storageClass = settings.classes.get(kindOf(this.name));
    const lock = isLockable(this.name) ? settings.lock : null;
    return {
      Metadata: { [META_SHA256]: sha256.toString('hex') },
      ...(storageClass !== undefined && { StorageClass: storageClass as 'STANDARD' }),
      ...(lock !== null && {
        ObjectLockMode: lock.mode,
        ObjectLockRetainUntilDate: new Date(clock.wallMs() + lock.forMs),
      }),
    };
  }

  private async whole(): Promise<PutTry> {
    const { source, name, connection } = this;
    const body = await source.read(0, source.bytes);
    const sha256 = sha256Of(body);
    const command = () =>
      new PutObjectCommand({
        ...this.target(),
        ...this.attributes(sha256),
        Body: body,
        ContentLength: body.length,
        ChecksumAlgorithm: 'SHA256',
        ChecksumSHA256: sha256.toString('base64'),
        IfNoneMatch: '*',
      });
    const asked = { what: 'put', name, bytes: body.length };
    let sent = 0;
    const send = (abortSignal: AbortSignal) => {
      sent += 1;
      return connection.client.send(command(), { abortSignal });
    };
    const { meaning } = await connection.ask(asked, send, ['taken']);
    if (meaning !== null) return this.whatIsThere(sha256);
    // Not where a try has failed: it may still be on its way out.
    if (sent === 1) source.release?.(body);
    return 'stored';
  }

  private async inParts(): Promise<PutTry> {
    const sha256 = await this.digest();
    const { name, connection } = this;
    const { answer } = await connection.ask({ what: 'begin upload of', name }, (abortSignal) =>
      connection.client.send(
        new CreateMultipartUploadCommand({
          ...this.target(),
          ...this.attributes(sha256),
          ChecksumAlgorithm: 'SHA256',
        }),
        { abortSignal },
      ),
    );
    const uploadId = answer!.UploadId!;
    let isComplete = false;
    try {
      const parts = await this.sendParts(uploadId);
      const result = await this.complete(uploadId, parts, sha256);
      isComplete = result === 'stored';
      return result;
    } finally {
      if (!isComplete) await this.abort(uploadId);
    }
  }

  private async digest(): Promise<Buffer> {
    const hash = createHash('sha256');
    const { partBytes } = this.connection.settings;
    for (let at = 0; at < this.source.bytes; at += partBytes) {
      const bytes = await this.source.read(at, Math.min(partBytes, this.source.bytes - at));
      hash.update(bytes);
      this.source.release?.(bytes);
    }
    return hash.digest();
  }

  private async sendParts(uploadId: string) {
    const { partBytes } = this.connection.settings;
    const count = Math.ceil(this.source.bytes / partBytes);
    const parts: Awaited<ReturnType<S3Upload['sendPart']>>[] = [];
    let next = 0;
    let failed = false;
    const lane = async () => {
      while (next < count && !failed) {
        const index = next;
        next += 1;
        try {
          parts[index] = await this.sendPart(uploadId, index);
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    // All lanes end before the upload is given up: a part that comes after that would stay.
    const ended = await Promise.allSettled(Array.from({ length: PARALLEL_PARTS }, lane));
    for (const end of ended) if (end.status === 'rejected') throw end.reason;
    return parts;
  }

  private async sendPart(uploadId: string, index: number) {
    const { connection, source, name } = this;
    const { partBytes } = connection.settings;
    const start = index * partBytes;
    const length = Math.min(partBytes, source.bytes - start);
    const asked = { what: `put part ${index + 1} of`, name, bytes: length };
    let checksum = '';
    const { answer } = await connection.ask(asked, async (abortSignal) => {
      const body = await source.read(start, length);
      checksum = sha256Of(body).toString('base64');
      const command = new UploadPartCommand({
        ...this.target(),
        UploadId: uploadId,
        PartNumber: index + 1,
        Body: body,
        ContentLength: length,
        ChecksumAlgorithm: 'SHA256',
        ChecksumSHA256: checksum,
      });
      const sent = await connection.client.send(command, { abortSignal });
      if (!abortSignal.aborted) source.release?.(body); // else it may still be on its way out
      return sent;
    });
    return { PartNumber: index + 1, ETag: answer!.ETag, ChecksumSHA256: checksum };
  }

  private async complete(
    uploadId: string,
    parts: Awaited<ReturnType<S3Upload['sendPart']>>[],
    sha256: Buffer,
  ): Promise<PutTry> {
    const { connection, name } = this;
    const command = () =>
      new CompleteMultipartUploadCommand({
        ...this.target(),
        UploadId: uploadId,
        MultipartUpload: { Parts: parts },
        IfNoneMatch: '*',
      });
    const { meaning } = await connection.ask(
      { what: 'end upload of', name },
      (abortSignal) => connection.client.send(command(), { abortSignal }),
      // Gone, perhaps because an end before, whose answer was lost, did it.
      ['taken', 'collided', 'no-upload', 'not-found'],
    );
    return meaning === null ? 'stored' : this.whatIsThere(sha256);
  }

  /** That it fails is told to nobody: the put's own error counts, and `clean` finds what is left. */
  private async abort(uploadId: string): Promise<void> {
    const { connection, name } = this;
    const command = () => new AbortMultipartUploadCommand({ ...this.target(), UploadId: uploadId });
    await connection
      .ask(
        { what: 'give up upload of', name, isOnce: true },
        (abortSignal) => connection.client.send(command(), { abortSignal }),
        ['no-upload', 'not-found'],
      )
      .catch(() => undefined);
  }

  /** The name is taken: by these very bytes? */
  private async whatIsThere(sha256: Buffer): Promise<PutTry> {
    const { connection, name } = this;
    const { answer } = await connection.ask(
      { what: 'look at', name },
      (abortSignal) =>
        connection.client.send(new HeadObjectCommand(this.target()), { abortSignal }),
      ['not-found'],
    );
    if (answer === null) return 'again';
    if (answer.ContentLength !== this.source.bytes) return 'exists';
    const known = answer.Metadata?.[META_SHA256] ?? (await this.digestThere());
    return known === sha256.toString('hex') ? 'stored' : 'exists';
  }

  private async digestThere(): Promise<string> {
    const hash = createHash('sha256');
    for await (const bytes of this.readBack(this.source.bytes)) hash.update(bytes);
    return hash.digest('hex');
  }
}
