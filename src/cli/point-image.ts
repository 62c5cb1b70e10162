/**
 * A volume at a point, read from the service by ranges, as the EC2 target wants it: where it has data, and in
 * what it differs from another point, both found from the digests that the service tells for every MiB.
 */
import type { Extent } from '../model/geometry.ts';
import type { BlockImage } from '../recovery/ec2/block-image.ts';
import type { ApiDigests } from '../staging/api-types.ts';
import { volumePath } from './operator.ts';
import type { RestClient } from './rest-client.ts';

type Piece = ApiDigests['pieces'][number];

const digestsOf = (client: RestClient, point: string, volume: string, offset: number) =>
  client.call<ApiDigests>('GET', `${volumePath(point, volume)}/digests`, { query: { offset } });

/** The bytes are held to one content by the image's ETag. */
export async function pointImage(
  client: RestClient,
  point: string,
  volume: string,
): Promise<BlockImage> {
  const path = `${volumePath(point, volume)}/image`;
  const { sizeBytes, etag } = await client.head(path);
  let page: { from: number; to: number; pieces: readonly Piece[] } | null = null;
  return {
    sizeBytes,
    read: (offset, length) => client.range(path, offset, length, etag),
    async nextData(offset) {
      let at = offset;
      while (at < sizeBytes) {
        if (page === null || at < page.from || at >= page.to) {
          const { pieces, next } = await digestsOf(client, point, volume, at);
          page = { from: at, to: next ?? sizeBytes, pieces };
        }
        const piece = page.pieces.find((held) => held.offset + held.length > at);
        if (piece !== undefined) {
          const start = Math.max(at, piece.offset);
          return { offset: start, length: piece.offset + piece.length - start };
        }
        at = page.to;
      }
      return null;
    },
  };
}

/** All pieces of an image, ascending. */
async function* piecesOf(client: RestClient, point: string, volume: string): AsyncGenerator<Piece> {
  for (let offset: number | null = 0; offset !== null; ) {
    const page: ApiDigests = await digestsOf(client, point, volume, offset);
    yield* page.pieces;
    offset = page.next;
  }
}

/** Where two points of a volume differ: pieces that changed, appeared, or became zero. */
export async function* differencesOf(
  client: RestClient,
  points: { readonly from: string; readonly to: string },
  volume: string,
): AsyncGenerator<Extent> {
  const before = piecesOf(client, points.from, volume);
  const after = piecesOf(client, points.to, volume);
  let old = await before.next();
  let now = await after.next();
  while (old.done !== true || now.done !== true) {
    const oldAt = old.done === true ? Number.POSITIVE_INFINITY : old.value.offset;
    const nowAt = now.done === true ? Number.POSITIVE_INFINITY : now.value.offset;
    const piece = (nowAt <= oldAt ? now.value : old.value) as Piece;
    const isSame = oldAt === nowAt && (old.value as Piece).digest === (now.value as Piece).digest;
    if (!isSame) yield { offset: piece.offset, length: piece.length };
    if (oldAt <= nowAt) old = await before.next();
    if (nowAt <= oldAt) now = await after.next();
  }
}
