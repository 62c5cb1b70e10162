/**
 * A volume at a point, read from the service by ranges, as the EC2 target wants it: where it has data, found
 * from the digests that the service tells for every MiB, and where it differs from another point.
 */
import type { Extent } from '../model/geometry.ts';
import type { BlockImage } from '../recovery/image-overlay.ts';
import type { ApiDifferences, ApiDigests } from '../staging/api-types.ts';
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

/** Where a volume differs between two points, as the service tells it. */
export async function* differencesOf(
  client: RestClient,
  points: { readonly from: string; readonly to: string },
  volume: string,
): AsyncGenerator<Extent> {
  const path = `${volumePath(points.to, volume)}/differences`;
  for (let offset: number | null = 0; offset !== null; ) {
    const query = { from: points.from, offset };
    const page: ApiDifferences = await client.call<ApiDifferences>('GET', path, { query });
    yield* page.extents;
    offset = page.next;
  }
}
