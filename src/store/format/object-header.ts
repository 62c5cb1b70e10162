/**
 * The head with which every file of the store starts:
 *
 *   0  magic, 8 bytes of ASCII      8  version u16 = 1      10  0 u16
 *   12 header length u32, all of it      16  fields of the kind      length - 8  XXH64 of what is before
 *
 * A reader checks magic, length and checksum, then version, before it believes a field.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { ByteReader, ByteWriter } from './bytes.ts';
import { CHECKSUM_BYTES, hasChecksum, sealChecksum } from './checksum.ts';

const FORMAT_VERSION = 1;
/** Bytes before the fields. */
export const PREFIX_BYTES = 16;
/** No header is longer: names are short, and a hostile length must not allocate. */
export const MAX_HEADER_BYTES = 16384;

export function encodeHeader(
  magic: string,
  fields: (writer: ByteWriter) => void,
  version = FORMAT_VERSION,
): Uint8Array {
  const body = new ByteWriter();
  fields(body);
  const length = PREFIX_BYTES + body.length + CHECKSUM_BYTES;
  const bytes = new ByteWriter()
    .raw(Buffer.from(magic, 'latin1'))
    .u16(version)
    .u16(0)
    .u32(length)
    .raw(body.take())
    .raw64(0n)
    .take();
  sealChecksum(bytes, 0, length - CHECKSUM_BYTES);
  return bytes;
}

export function damaged(path: string, detail: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('ERR_OBJECT_DAMAGED', `${path}: ${detail}`, { path }, cause);
}

/**
 * True for an error that is about one file alone: its bytes are wrong, are of another version, or cannot
 * be read. Whoever reads many files tells it and goes on with the others.
 */
export function isDamage(error: unknown): error is UnderstudyError {
  if (!(error instanceof UnderstudyError)) return false;
  return error.spec.kind === 'corruption' || damageCodes.includes(error.code);
}

const damageCodes: readonly string[] = ['ERR_DATA_FORMAT', 'ERR_ENTRIES_INVALID', 'ERR_DISK_IO'];

/** True where a file has gone since it was listed: replaced, moved or removed. */
export const isNotFound = (error: unknown): error is UnderstudyError =>
  error instanceof UnderstudyError && error.code === 'ERR_DISK_NOT_FOUND';

/** Length of the header that begins with `prefix` (16 bytes); nothing else of it is believed yet. */
export function headerLength(prefix: Uint8Array, magic: string, path: string): number {
  if (prefix.length < PREFIX_BYTES) throw damaged(path, 'cut short');
  const reader = new ByteReader(prefix, path);
  const found = Buffer.from(reader.raw(8)).toString('latin1');
  if (found !== magic) throw damaged(path, `not a ${magic.trim()} file`);
  reader.u32(); // version and reserved: judged once the checksum is right
  const length = reader.u32();
  if (length < PREFIX_BYTES + CHECKSUM_BYTES || length > MAX_HEADER_BYTES) {
    throw damaged(path, `header of ${length} bytes`);
  }
  return length;
}

/**
 * Fields of a whole header at the start of `bytes`, and where it ends. ERR_OBJECT_DAMAGED, and
 * ERR_DATA_FORMAT for another version: only where the checksum is right, for a flipped bit is none.
 */
export function openHeader(
  bytes: Uint8Array,
  magic: string,
  path: string,
  expected = FORMAT_VERSION,
): { fields: ByteReader; length: number } {
  const length = headerLength(bytes, magic, path);
  if (length > bytes.length) throw damaged(path, 'cut short');
  if (!hasChecksum(bytes, 0, length - CHECKSUM_BYTES)) {
    throw damaged(path, 'the checksum of the header is wrong');
  }
  const judged = new ByteReader(bytes, path, 8);
  const version = judged.u16();
  if (version !== expected) {
    throw new UnderstudyError('ERR_DATA_FORMAT', `${path}: version ${version}`, { path });
  }
  if (judged.u16() !== 0) throw damaged(path, 'reserved bytes are set');
  const fields = new ByteReader(bytes.subarray(0, length - CHECKSUM_BYTES), path, PREFIX_BYTES);
  return { fields, length };
}
