/**
 * Recovery points as bytes: the body of a commit record in the journal, and of a point object in the
 * repository. JSON, for a stranger to read (P7); the object has a header with length and checksum before
 * it. Decoding is total: whatever is there becomes a point or ERR_OBJECT_DAMAGED.
 */
import type { CutInfo, PointVolume, RecoveryPoint } from '../../model/replication.ts';
import { checksum } from '../format/checksum.ts';
import { damaged, encodeHeader, openHeader } from '../format/object-header.ts';

const MAGIC = 'US-POINT';

/** What a point needs beyond what is shown of it. */
export interface CommittedVolume extends PointVolume {
  readonly previousRoot: string;
  /** The agent's digest over the epoch. */
  readonly contentDigest: string;
}

export interface PointRecord extends RecoveryPoint {
  readonly volumes: readonly CommittedVolume[];
  readonly timeMs: number;
  /** Number of the commit among all of the store: grows by one. */
  readonly sequence: number;
  readonly requestId: string;
  /** When it was committed, by the clock of staging, ms since 1970. Older points do not have it. */
  readonly receivedMs?: number;
}

export const encodePointBody = (point: PointRecord): Uint8Array =>
  new Uint8Array(Buffer.from(JSON.stringify(point), 'utf8'));

/** The object: header {body length u32, XXH64 of the body}, then the body. */
export function encodePointObject(point: PointRecord): Uint8Array {
  const body = encodePointBody(point);
  const header = encodeHeader(MAGIC, (writer) => writer.u32(body.length).raw64(checksum(body)));
  return Buffer.concat([header, body]);
}

export function decodePointObject(bytes: Uint8Array, path: string): PointRecord {
  const { fields, length } = openHeader(bytes, MAGIC, path);
  const bodyLength = fields.u32();
  const body = bytes.subarray(length);
  if (body.length !== bodyLength || checksum(body) !== fields.raw64()) {
    throw damaged(path, 'the body is damaged');
  }
  return decodePointBody(body, path);
}

type Fields = Record<string, unknown>;

/** Reads fields of known types out of parsed JSON. */
class Shape {
  private readonly path: string;
  private readonly fields: Fields;

  constructor(value: unknown, path: string) {
    this.path = path;
    if (typeof value !== 'object' || value === null) throw damaged(path, 'not an object');
    this.fields = value as Fields;
  }

  text(name: string): string {
    const value = this.fields[name];
    if (typeof value !== 'string') throw damaged(this.path, `${name} is not a text`);
    return value;
  }

  digest(name: string): string {
    const value = this.text(name);
    if (!/^[0-9a-f]{64}$/.test(value)) throw damaged(this.path, `${name} is not a digest`);
    return value;
  }

  optionalCount(name: string): number | undefined {
    return this.fields[name] === undefined ? undefined : this.count(name);
  }

  count(name: string): number {
    const value = this.fields[name];
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      throw damaged(this.path, `${name} is not a whole number`);
    }
    return value;
  }

  number(name: string): number {
    const value = this.fields[name];
    if (typeof value !== 'number') throw damaged(this.path, `${name} is not a number`);
    return value;
  }

  list<T>(name: string, read: (value: unknown) => T): T[] {
    const value = this.fields[name];
    if (!Array.isArray(value)) throw damaged(this.path, `${name} is not a list`);
    return value.map(read);
  }

  shape(name: string): Shape {
    return new Shape(this.fields[name], this.path);
  }
}

const cutMethods: readonly string[] = ['validated', 'scan', 'frozen', 'logged'];

function readCut(shape: Shape, path: string): CutInfo {
  const method = shape.text('method');
  if (!cutMethods.includes(method)) throw damaged(path, `unknown cut method ${method}`);
  return {
    method: method as CutInfo['method'],
    passes: shape.number('passes'),
    durationMs: shape.number('durationMs'),
  };
}

function readVolume(value: unknown, path: string): CommittedVolume {
  const shape = new Shape(value, path);
  return {
    volume: shape.text('volume'),
    sizeBytes: shape.count('sizeBytes'),
    sectorBytes: shape.count('sectorBytes'),
    generation: shape.text('generation'),
    epoch: shape.count('epoch'),
    chainRoot: shape.digest('chainRoot'),
    previousRoot: shape.digest('previousRoot'),
    contentDigest: shape.text('contentDigest'),
  };
}

export function decodePointBody(body: Uint8Array, path: string): PointRecord {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch (cause) {
    throw damaged(path, 'the body is not JSON', cause);
  }
  const shape = new Shape(value, path);
  const receivedMs = shape.optionalCount('receivedMs');
  return {
    ...(receivedMs === undefined ? {} : { receivedMs }),
    id: shape.text('id'),
    server: shape.text('server'),
    time: shape.text('time'),
    timeMs: shape.count('timeMs'),
    sequence: shape.count('sequence'),
    requestId: shape.text('requestId'),
    cut: readCut(shape.shape('cut'), path),
    volumes: shape.list('volumes', (item) => readVolume(item, path)),
    missingVolumes: shape.list('missingVolumes', (item) => {
      if (typeof item !== 'string') throw damaged(path, 'missingVolumes is not a list of texts');
      return item;
    }),
  };
}

/** What is shown of a point, without what only the store needs. */
export const shownPoint = (record: PointRecord): RecoveryPoint => ({
  id: record.id,
  server: record.server,
  time: record.time,
  cut: record.cut,
  volumes: record.volumes.map(
    ({ volume, sizeBytes, sectorBytes, generation, epoch, chainRoot }) => ({
      volume,
      sizeBytes,
      sectorBytes,
      generation,
      epoch,
      chainRoot,
    }),
  ),
  missingVolumes: record.missingVolumes,
});
