/** A store that holds some points of servers, for plans: no bytes, and a count of who has one open. */
import { UnderstudyError } from '../../../src/base/errors.ts';
import type { ImageReader, ListedPoint, PointFilter, Store } from '../../../src/store/types.ts';
import { fakePoint } from './fake-backend.ts';

export const pointOf = (server: string, minute: number): ListedPoint => ({
  ...fakePoint(`${server}-${String(minute).padStart(2, '0')}`),
  ...{ server, time: new Date(Date.UTC(2026, 10, 20, 10, minute)).toISOString() },
});

/** `points`: newest first, as it is then. `opened` is told of readers that come and go. */
export function storeOf(
  points: readonly ListedPoint[],
  opened: (change: 1 | -1) => void = () => undefined,
): Store {
  const find = async (id: string) => {
    const point = points.find((each) => each.id === id);
    if (point === undefined) throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`);
    return point;
  };
  const store: Partial<Store> = {
    point: find,
    points: async ({ server, toMs = Number.POSITIVE_INFINITY, after }: PointFilter) =>
      after !== undefined
        ? []
        : points.filter((each) => each.server === server && Date.parse(each.time) <= toMs),
    lastCommitted: async (server) =>
      points.find((each) => each.server === server && each.missingVolumes.length === 0) ?? null,
    servers: async () => points.map(({ server }) => ({ server, volumes: [], newestPoint: null })),
    openImage: async (id) => {
      await find(id);
      opened(1);
      return { sizeBytes: 4096, close: () => opened(-1) } as Partial<ImageReader> as ImageReader;
    },
  };
  return store as Store;
}
