/**
 * The bounds of version 1 of the protocol: what a peer may send at most. Decoders refuse what lies beyond,
 * so that nothing a peer says can make the other side allocate more than its frame's length justifies.
 */

import { KIB, MIB } from '../base/units.ts';
import { CHUNK_BYTES } from '../model/geometry.ts';

/** Whole frame. Senders aim at a MiB of content; a WebSocket message is one frame. */
export const MAX_FRAME_BYTES = 4 * MIB;
/** Encoded entries of one batch: at most 128 Ki items. */
export const MAX_ENTRIES_BYTES = 256 * KIB;
export const MAX_PIECE_BYTES = CHUNK_BYTES;
export const MAX_VOLUMES = 256;
export const MAX_MISSING_CHUNKS = 4096;
/** UTF-8 bytes. */
export const MAX_VOLUME_ID_BYTES = 255;
export const MAX_WORD_BYTES = 128;
export const MAX_TEXT_BYTES = 1024;
/** Of a machine; the worst come first. */
export const MAX_FINDINGS = 512;
/** Most that staging ever grants as a window. */
export const MAX_WINDOW_BYTES = 1024 * MIB;
