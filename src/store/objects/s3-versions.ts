/**
 * Removing objects for good. In a bucket that keeps versions a plain removal only hides an object, and what
 * it costs goes on; so all versions of the very name are removed. Where Object Lock may keep one, that is
 * asked first: either all of them go or nothing is changed.
 */
import {
  DeleteObjectCommand,
  GetBucketVersioningCommand,
  GetObjectLockConfigurationCommand,
  HeadObjectCommand,
  ListObjectVersionsCommand,
} from '@aws-sdk/client-s3';
import type { S3Connection } from './s3-connection.ts';

interface Version {
  readonly id: string;
  readonly isMarker: boolean;
  readonly isLatest: boolean;
}

/** Of a bucket: neither changes in a way that a running service has to see. */
interface BucketFacts {
  readonly hasVersions: boolean;
  readonly mayLock: boolean;
}

export class S3Versions {
  private readonly connection: S3Connection;
  private facts: Promise<BucketFacts> | null = null;

  constructor(connection: S3Connection) {
    this.connection = connection;
  }

  async remove(name: string): Promise<'removed' | 'locked'> {
    const { hasVersions } = await this.bucket();
    if (!hasVersions) {
      await this.removeOne(name, undefined);
      return 'removed';
    }
    return this.removeVersions(name, await this.list(name));
  }

  /** Removes what `reclass` has replaced: all versions but the latest. */
  async removeFormer(name: string): Promise<void> {
    const { hasVersions } = await this.bucket();
    if (!hasVersions) return;
    const versions = await this.list(name);
    await this.removeVersions(
      name,
      versions.filter(({ isLatest }) => !isLatest),
    );
  }

  /** True where Object Lock keeps some version of the object now. */
  async isLocked(name: string): Promise<boolean> {
    const { hasVersions, mayLock } = await this.bucket();
    if (!hasVersions || !mayLock) return false;
    for (const version of await this.list(name)) {
      if (await this.isVersionLocked(name, version)) return true;
    }
    return false;
  }

  private async removeVersions(
    name: string,
    versions: readonly Version[],
  ): Promise<'removed' | 'locked'> {
    const { mayLock } = await this.bucket();
    if (mayLock) {
      for (const version of versions) {
        if (await this.isVersionLocked(name, version)) return 'locked';
      }
    }
    for (const { id } of versions) {
      const isDenied = !(await this.removeOne(name, id, mayLock));
      // Its lock has come, or is not shown to us.
      if (isDenied) return 'locked';
    }
    return 'removed';
  }

  private target(name: string) {
    const { connection } = this;
    return { Bucket: connection.settings.bucket, Key: connection.key(name) };
  }

  /** False where it is denied and `mayBeDenied`. */
  private async removeOne(
    name: string,
    version: string | undefined,
    mayBeDenied = false,
  ): Promise<boolean> {
    const { connection } = this;
    const { meaning } = await connection.ask(
      { what: 'remove', name },
      (abortSignal) =>
        connection.client.send(
          new DeleteObjectCommand({
            ...this.target(name),
            ...(version !== undefined && { VersionId: version }),
          }),
          { abortSignal },
        ),
      ['not-found', ...(mayBeDenied ? (['denied'] as const) : [])],
    );
    return meaning !== 'denied';
  }

  private async list(name: string): Promise<Version[]> {
    const { connection } = this;
    const key = connection.key(name);
    const found: Version[] = [];
    let at: { KeyMarker?: string; VersionIdMarker?: string } | null = {};
    while (at !== null) {
      const from: { KeyMarker?: string; VersionIdMarker?: string } = at;
      const { answer } = await connection.ask({ what: 'list versions of', name }, (abortSignal) =>
        connection.client.send(
          new ListObjectVersionsCommand({
            Bucket: connection.settings.bucket,
            Prefix: key,
            ...from,
          }),
          { abortSignal },
        ),
      );
      const kept = (answer!.Versions ?? []).map((each) => ({ ...each, isMarker: false }));
      const markers = (answer!.DeleteMarkers ?? []).map((each) => ({ ...each, isMarker: true }));
      for (const { Key, VersionId = 'null', IsLatest = false, isMarker } of [...kept, ...markers]) {
        if (Key === key) found.push({ id: VersionId, isMarker, isLatest: IsLatest });
      }
      // Names come in order: behind the very name there are only longer ones.
      const isMore = answer!.IsTruncated === true && answer!.NextKeyMarker === key;
      at = isMore ? { KeyMarker: key, VersionIdMarker: answer!.NextVersionIdMarker ?? '' } : null;
    }
    return found;
  }

  private async isVersionLocked(name: string, { id, isMarker }: Version): Promise<boolean> {
    if (isMarker) return false;
    const { connection } = this;
    const { answer } = await connection.ask(
      { what: 'look at', name },
      (abortSignal) =>
        connection.client.send(new HeadObjectCommand({ ...this.target(name), VersionId: id }), {
          abortSignal,
        }),
      ['not-found'],
    );
    if (answer?.ObjectLockLegalHoldStatus === 'ON') return true;
    const until = answer?.ObjectLockRetainUntilDate?.getTime() ?? 0;
    return answer?.ObjectLockMode !== undefined && until > connection.clock.wallMs();
  }

  private bucket(): Promise<BucketFacts> {
    this.facts ??= this.askBucket().catch((error: unknown) => {
      this.facts = null;
      throw error;
    });
    return this.facts;
  }

  /** What may not be asked is taken for possible: that costs requests, and never an object. */
  private async askBucket(): Promise<BucketFacts> {
    const { connection } = this;
    const Bucket = connection.settings.bucket;
    const versioning = await connection.ask(
      { what: 'ask for the versioning of', name: '' },
      (abortSignal) =>
        connection.client.send(new GetBucketVersioningCommand({ Bucket }), { abortSignal }),
      ['denied', 'unknown-function', 'not-found'],
    );
    const hasVersions = versioning.answer?.Status !== undefined || versioning.meaning === 'denied';
    if (!hasVersions) return { hasVersions, mayLock: false };
    const lock = await connection.ask(
      { what: 'ask for the Object Lock of', name: '' },
      (abortSignal) =>
        connection.client.send(new GetObjectLockConfigurationCommand({ Bucket }), { abortSignal }),
      ['denied', 'unknown-function', 'not-found'],
    );
    const isEnabled = lock.answer?.ObjectLockConfiguration?.ObjectLockEnabled === 'Enabled';
    return { hasVersions, mayLock: isEnabled || lock.meaning === 'denied' };
  }
}
