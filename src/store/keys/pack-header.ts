/**
 * The header with which a pack, and a journal segment, begins. In an encrypted repository it is version 2
 * and names the data key; a reader knows beforehand which of the two it must be, so that nobody can pass
 * a plain pack off on it. FORMAT.md, "Packs"; FORMAT-ENCRYPTION.md.
 */
import { toHex } from '../format/checksum.ts';
import { damaged, encodeHeader, openHeader } from '../format/object-header.ts';
import { PLAIN_HEADER_BYTES, SEALED_HEADER_BYTES } from './pack-seal.ts';

const PACK_MAGIC = 'US-PACK ';
const SEALED_VERSION = 2;
/** The last bytes of a pack, and where the data key's id lies in them; zeros where there is none. */
export const TRAILER_BYTES = 64;
export const KEY_ID_AT = 40;

export interface PackHeader {
  /** 32 hex digits, chosen at random. */
  readonly id: string;
  /** Number of the journal segment, 0 for a pack that was not one. */
  readonly sequence: number;
  readonly createdMs: number;
  /** 16 hex digits; null: not encrypted. */
  readonly keyId: string | null;
}

export const encodePackHeader = ({ id, sequence, createdMs, keyId }: PackHeader): Uint8Array =>
  encodeHeader(
    PACK_MAGIC,
    (writer) => {
      writer.raw(Buffer.from(id, 'hex')).u64(sequence).u64(createdMs);
      if (keyId !== null) writer.raw(Buffer.from(keyId, 'hex'));
    },
    keyId === null ? undefined : SEALED_VERSION,
  );

/** ERR_OBJECT_DAMAGED; ERR_DATA_FORMAT where it is not of the kind that the repository has. */
export function decodePackHeader(bytes: Uint8Array, path: string, isSealed: boolean): PackHeader {
  const version = isSealed ? SEALED_VERSION : undefined;
  const { fields, length } = openHeader(bytes, PACK_MAGIC, path, version);
  if (length !== (isSealed ? SEALED_HEADER_BYTES : PLAIN_HEADER_BYTES)) {
    throw damaged(path, `header of ${length} bytes`);
  }
  const given = { id: toHex(fields.raw(16)), sequence: fields.u64(), createdMs: fields.u64() };
  return { ...given, keyId: isSealed ? toHex(fields.raw(8)) : null };
}

export const trailerKeyId = (trailer: Uint8Array): Uint8Array =>
  trailer.subarray(KEY_ID_AT, KEY_ID_AT + 8);
