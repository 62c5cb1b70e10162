/**
 * A strict stand-in for the EBS direct API, where moto is lax: blocks of 512 KiB with right checksums, tokens
 * that are idempotent and conflict, parent chains in which a block that is not put keeps the parent's bytes,
 * encryption only at the first of a chain, snapshots that are given up without blocks, limits on pending ones,
 * pages. What the service documents, and nothing of what its client needs. Requests come from
 * `aws-double.ts`; time is the caller's, so that an hour passes at once.
 */
import { createHash } from 'node:crypto';

export const BLOCK_BYTES = 524_288;

export interface DoubleSnapshot {
  readonly id: string;
  readonly sizeGiB: number;
  readonly parent: DoubleSnapshot | null;
  readonly tags: Readonly<Record<string, string>>;
  readonly description: string;
  readonly kmsKeyArn: string | null;
  readonly timeoutMs: number;
  state: 'pending' | 'completed' | 'error';
  isSealed: boolean;
  /** With which aggregate checksum; null: it was sealed without, or is not. */
  checksum: string | null;
  completesMs: number;
  touchedMs: number;
  /** Blocks that were put to this very snapshot. */
  readonly blocks: Map<number, Buffer>;
}

/** An answer that is an error: HTTP status, name and reason as the service's model has them. */
export class EbsRefusal extends Error {
  readonly status: number;
  readonly type: string;
  readonly reason: string | undefined;

  constructor(status: number, type: string, message: string, reason?: string) {
    super(message);
    this.status = status;
    this.type = type;
    this.reason = reason;
  }
}

const invalid = (reason: string, message: string) =>
  new EbsRefusal(400, 'ValidationException', message, reason);

export interface EbsAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | object;
}

export interface EbsRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
}

export interface EbsSettings {
  nowMs: () => number;
  /** How long a sealed snapshot stays pending. */
  completionMs: number;
  pendingLimit: number;
  /** Blocks in a page, whatever is asked for. */
  pageBlocks: number;
  isEncryptedByDefault: boolean;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('base64');
const ARN = /^arn:aws[a-z-]*:kms:.*:[0-9]{12}:key\/.*$/;

export class EbsDouble {
  readonly snapshots = new Map<string, DoubleSnapshot>();
  readonly settings: EbsSettings = {
    nowMs: () => Date.now(),
    completionMs: 0,
    pendingLimit: 100,
    pageBlocks: 1000,
    isEncryptedByDefault: false,
  };
  private readonly tokens = new Map<string, { asked: string; snapshot: DoubleSnapshot }>();
  private count = 0;

  answer(request: EbsRequest): EbsAnswer {
    this.age();
    const { method, url } = request;
    const [, , first, second, third] = url.pathname.split('/');
    if (method === 'POST' && first === undefined) return this.start(request);
    if (method === 'POST' && first === 'completion') return this.complete(second!, request);
    if (method === 'PUT' && second === 'blocks') return this.put(first!, third!, request);
    if (method === 'GET' && second === 'blocks') {
      return third === undefined ? this.list(first!, url) : this.get(first!, third, url);
    }
    throw new EbsRefusal(404, 'UnknownOperationException', `${method} ${url.pathname}`);
  }

  /** What a volume made of the snapshot would hold at block `index`. */
  content(snapshot: DoubleSnapshot, index: number): Buffer {
    for (let at: DoubleSnapshot | null = snapshot; at !== null; at = at.parent) {
      const block = at.blocks.get(index);
      if (block !== undefined) return block;
    }
    return Buffer.alloc(BLOCK_BYTES);
  }

  /** The whole volume, `sizeBytes` of it; what is behind must be zero. */
  volume(id: string, sizeBytes: number): Buffer {
    const snapshot = this.snapshots.get(id)!;
    const blocks = Math.ceil(sizeBytes / BLOCK_BYTES);
    const all = Array.from({ length: blocks }, (_, index) => this.content(snapshot, index));
    return Buffer.concat(all);
  }

  /** Snapshots that were sealed long enough ago are completed; those without blocks are given up. */
  age(): void {
    const nowMs = this.settings.nowMs();
    for (const snapshot of this.snapshots.values()) {
      if (snapshot.state !== 'pending') continue;
      if (snapshot.isSealed && nowMs >= snapshot.completesMs) snapshot.state = 'completed';
      const isIdle = !snapshot.isSealed && nowMs - snapshot.touchedMs > snapshot.timeoutMs;
      if (isIdle) snapshot.state = 'error';
    }
  }

  private start({ body }: EbsRequest): EbsAnswer {
    const asked = body.toString();
    const given = JSON.parse(asked) as Record<string, unknown>;
    const token = given.ClientToken as string;
    const earlier = this.tokens.get(token);
    if (earlier !== undefined) {
      // Also where it was deleted since.
      if (earlier.asked === asked) return this.told(earlier.snapshot);
      throw new EbsRefusal(409, 'ConflictException', 'the token was used with other parameters');
    }
    const snapshot = this.begun(given);
    this.snapshots.set(snapshot.id, snapshot);
    this.tokens.set(token, { asked, snapshot });
    return this.told(snapshot);
  }

  private begun(given: Record<string, unknown>): DoubleSnapshot {
    const size = given.VolumeSize as number;
    if (!Number.isInteger(size) || size < 1 || size > 65_536) {
      throw invalid('INVALID_VOLUME_SIZE', `volume size ${size}`);
    }
    const timeout = (given.Timeout as number | undefined) ?? 60;
    if (timeout < 10 || timeout > 4320) throw invalid('INVALID_PARAMETER_VALUE', 'timeout');
    const parentId = given.ParentSnapshotId as string | undefined;
    const isEncryptionAsked = given.Encrypted !== undefined || given.KmsKeyArn !== undefined;
    if (parentId !== undefined && isEncryptionAsked) {
      throw invalid('INVALID_PARAMETER_VALUE', 'Encrypted and ParentSnapshotId');
    }
    if (
      given.KmsKeyArn !== undefined &&
      (given.Encrypted !== true || !ARN.test(`${given.KmsKeyArn}`))
    )
      throw invalid('INVALID_CUSTOMER_KEY', 'a key needs Encrypted, and an ARN');
    const parent = parentId === undefined ? null : this.parent(parentId, size);
    const pending = [...this.snapshots.values()].filter((held) => held.state === 'pending');
    if (pending.length >= this.settings.pendingLimit) {
      throw new EbsRefusal(400, 'ConcurrentLimitExceededException', 'too many pending snapshots');
    }
    const ownKey = given.Encrypted === true || this.settings.isEncryptedByDefault;
    const key = (given.KmsKeyArn as string | undefined) ?? (ownKey ? 'default' : null);
    const tags = (given.Tags ?? []) as { Key: string; Value: string }[];
    this.count += 1;
    return {
      id: `snap-${this.count.toString(16).padStart(17, '0')}`,
      sizeGiB: size,
      parent,
      tags: Object.fromEntries(tags.map(({ Key, Value }) => [Key, Value])),
      description: (given.Description as string | undefined) ?? '',
      kmsKeyArn: parent === null ? key : parent.kmsKeyArn,
      timeoutMs: timeout * 60_000,
      ...{ state: 'pending', isSealed: false, checksum: null, completesMs: 0 },
      touchedMs: this.settings.nowMs(),
      blocks: new Map(),
    };
  }

  private parent(id: string, size: number): DoubleSnapshot {
    const parent = this.known(id);
    if (parent.state !== 'completed')
      throw invalid('INVALID_SNAPSHOT_ID', `${id} is not completed`);
    if (parent.sizeGiB > size) throw invalid('INVALID_VOLUME_SIZE', 'smaller than the parent');
    if (parent.kmsKeyArn === null && this.settings.isEncryptedByDefault) {
      throw invalid(
        'INVALID_PARAMETER_VALUE',
        'the parent is not encrypted, the account demands it',
      );
    }
    return parent;
  }

  private put(id: string, at: string, { headers, body }: EbsRequest): EbsAnswer {
    const snapshot = this.open(id);
    const index = this.index(snapshot, at);
    const length = Number(headers['x-amz-data-length']);
    if (length !== BLOCK_BYTES || body.length !== BLOCK_BYTES) {
      throw invalid('INVALID_BLOCK', `a block of ${body.length} bytes, ${length} told`);
    }
    if (headers['x-amz-checksum-algorithm'] !== 'SHA256') {
      throw invalid('INVALID_PARAMETER_VALUE', 'checksum algorithm');
    }
    const checksum = sha256(body);
    if (headers['x-amz-checksum'] !== checksum) throw invalid('INVALID_BLOCK', 'checksum');
    const earlier = snapshot.blocks.get(index);
    if (earlier !== undefined && !earlier.equals(body)) {
      throw invalid('CONFLICTING_BLOCK_UPDATE', `block ${index} was put with other bytes`);
    }
    snapshot.blocks.set(index, body);
    snapshot.touchedMs = this.settings.nowMs();
    const told = { 'x-amz-checksum': checksum, 'x-amz-checksum-algorithm': 'SHA256' };
    return { status: 201, headers: told, body: {} };
  }

  private complete(id: string, { headers }: EbsRequest): EbsAnswer {
    const snapshot = this.open(id);
    const count = Number(headers['x-amz-changedblockscount']);
    if (count !== snapshot.blocks.size) {
      throw invalid(
        'INVALID_PARAMETER_VALUE',
        `${count} blocks told, ${snapshot.blocks.size} held`,
      );
    }
    const told = headers['x-amz-checksum'];
    if (told !== undefined) {
      const method = headers['x-amz-checksum-aggregation-method'];
      const algorithm = headers['x-amz-checksum-algorithm'];
      if (method !== 'LINEAR' || algorithm !== 'SHA256') {
        throw invalid('INVALID_PARAMETER_VALUE', 'checksum method');
      }
      const ordered = [...snapshot.blocks].sort(([a], [b]) => a - b);
      const digests = ordered.map(([, block]) => createHash('sha256').update(block).digest());
      if (told !== sha256(Buffer.concat(digests))) {
        throw invalid('INVALID_PARAMETER_VALUE', 'the checksum is not that of the blocks');
      }
    }
    snapshot.isSealed = true;
    snapshot.checksum = told ?? null;
    snapshot.completesMs = this.settings.nowMs() + this.settings.completionMs;
    return { status: 202, body: { Status: 'pending' } };
  }

  private list(id: string, url: URL): EbsAnswer {
    const snapshot = this.completed(id);
    const held = new Set<number>();
    for (let at: DoubleSnapshot | null = snapshot; at !== null; at = at.parent) {
      for (const index of at.blocks.keys()) held.add(index);
    }
    const page = url.searchParams.get('pageToken');
    const from = page === null ? 0 : Number(Buffer.from(page, 'base64').toString());
    const all = [...held].sort((a, b) => a - b).filter((index) => index >= from);
    const shown = all.slice(0, this.settings.pageBlocks);
    const next = all[shown.length];
    // An order within a page is not promised.
    shown.reverse();
    return {
      status: 200,
      body: {
        Blocks: shown.map((index) => ({ BlockIndex: index, BlockToken: tokenOf(id, index) })),
        VolumeSize: snapshot.sizeGiB,
        BlockSize: BLOCK_BYTES,
        ExpiryTime: 2_000_000_000,
        ...(next !== undefined && { NextToken: Buffer.from(`${next}`).toString('base64') }),
      },
    };
  }

  private get(id: string, at: string, url: URL): EbsAnswer {
    const snapshot = this.completed(id);
    const index = this.index(snapshot, at);
    if (url.searchParams.get('blockToken') !== tokenOf(id, index)) {
      throw invalid('INVALID_BLOCK_TOKEN', `block ${index}`);
    }
    const body = this.content(snapshot, index);
    const headers = {
      'x-amz-data-length': `${body.length}`,
      'x-amz-checksum': sha256(body),
      'x-amz-checksum-algorithm': 'SHA256',
    };
    return { status: 200, headers, body };
  }

  private index(snapshot: DoubleSnapshot, text: string): number {
    const index = Number(text);
    const count = (snapshot.sizeGiB * 2 ** 30) / BLOCK_BYTES;
    if (!Number.isInteger(index) || index < 0 || index >= count) {
      throw invalid('INVALID_BLOCK', `block ${text} of ${count}`);
    }
    return index;
  }

  private known(id: string): DoubleSnapshot {
    const snapshot = this.snapshots.get(id);
    if (snapshot !== undefined) return snapshot;
    const message = `The snapshot '${id}' does not exist.`;
    throw new EbsRefusal(404, 'ResourceNotFoundException', message, 'SNAPSHOT_NOT_FOUND');
  }

  /** One that blocks may be put to. */
  private open(id: string): DoubleSnapshot {
    const snapshot = this.known(id);
    if (snapshot.state === 'error') {
      throw new EbsRefusal(404, 'ResourceNotFoundException', 'given up', 'SNAPSHOT_NOT_FOUND');
    }
    if (snapshot.isSealed) throw invalid('INVALID_SNAPSHOT_ID', `${id} is sealed`);
    return snapshot;
  }

  private completed(id: string): DoubleSnapshot {
    const snapshot = this.known(id);
    if (snapshot.state === 'completed') return snapshot;
    throw invalid('INVALID_SNAPSHOT_ID', `${id} is not completed`);
  }

  private told(snapshot: DoubleSnapshot): EbsAnswer {
    return {
      status: 201,
      body: {
        SnapshotId: snapshot.id,
        Status: 'pending',
        VolumeSize: snapshot.sizeGiB,
        BlockSize: BLOCK_BYTES,
        ...(snapshot.parent !== null && { ParentSnapshotId: snapshot.parent.id }),
      },
    };
  }
}

const tokenOf = (id: string, index: number): string =>
  Buffer.from(`${id}/${index}`).toString('base64');
