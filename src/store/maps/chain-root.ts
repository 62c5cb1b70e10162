/** Chain roots: each links a map to all the maps before it, back to the beginning of its generation. */
import { fromHex, sha256, toHex } from '../format/checksum.ts';
import type { MapPlace } from '../format/layout.ts';

/** Root before the first epoch of a generation. */
export const firstRoot = (place: MapPlace, sizeBytes: number): string =>
  toHex(
    sha256(
      Buffer.from(
        `understudy chain\n${place.server}\n${place.volume}\n${place.generation}\n${sizeBytes}\n`,
      ),
    ),
  );

/** H(previous root, digest over the delta's leaves). */
export const nextRoot = (previousRoot: string, leafDigest: Uint8Array): string =>
  toHex(sha256(Buffer.concat([fromHex(previousRoot), leafDigest])));
