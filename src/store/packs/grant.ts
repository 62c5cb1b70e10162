/**
 * Grants: the note that a server has sent a content that was stored already, so that it may be told
 * "have" (an offer must not tell what another server stores, P8). A grant is stored like a piece: its
 * name is a hash over owner and digest (keys/names.ts), and its content is the digest itself.
 */
import { DIGEST_BYTES } from '../../model/geometry.ts';
import { equalBytes } from '../format/checksum.ts';
import type { Names } from '../format/names.ts';
import type { TableEntry } from './digest-table.ts';
import { DIGEST_IN_HEADER, PIECE_HEADER_BYTES } from './record.ts';

/** True where `digest` is what the grant named `key` is about. */
export const isGrantOf = (
  names: Names,
  key: Uint8Array,
  owner: Uint8Array,
  digest: Uint8Array,
): boolean => equalBytes(names.grant(owner, digest), key);

/**
 * The grant that a second copy of a content stands for: where two servers' copies meet, one is found
 * from then on, and the owner of the other keeps being told "have". Its content is the digest in the
 * header of that copy.
 */
export const grantOf = (names: Names, copy: TableEntry): TableEntry => ({
  digest: names.grant(copy.owner, copy.digest),
  owner: copy.owner,
  offset: copy.offset - PIECE_HEADER_BYTES + DIGEST_IN_HEADER,
  storedLength: DIGEST_BYTES,
  rawLength: DIGEST_BYTES,
  codec: 0,
  isGrant: true,
  pack: copy.pack,
});
