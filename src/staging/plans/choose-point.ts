/** Which recovery point a member of a plan is brought back from: by id, the newest, the newest that booted. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { ListedPoint, Store } from '../../store/types.ts';
import type { PlanMember } from './plan-file.ts';
import type { Verdicts } from './verdicts.ts';

export interface PointSources {
  readonly store: Pick<Store, 'point' | 'points' | 'lastCommitted' | 'servers'>;
  readonly verdicts: Verdicts;
}

export interface PointWish extends Pick<PlanMember, 'server' | 'point' | 'at' | 'maxAgeMs'> {
  /** All as they were then, whatever the plan says of points; null: as the plan says. */
  readonly atMs: number | null;
  readonly nowMs: number;
}

const PAGE = 100;
const refuse = (message: string): UnderstudyError => new UnderstudyError('ERR_PLAN_POINT', message);

/** ERR_PLAN_POINT, ERR_POINT_NOT_FOUND, ERR_SERVER_NOT_FOUND. */
export async function choosePoint(from: PointSources, wish: PointWish): Promise<ListedPoint> {
  const { server, atMs, nowMs, maxAgeMs } = wish;
  const point = await found(from, wish);
  const ageMs = (atMs ?? nowMs) - Date.parse(point.time);
  if (maxAgeMs !== null && ageMs > maxAgeMs) {
    const [age, most] = [formatDuration(ageMs), formatDuration(maxAgeMs)];
    throw refuse(`point ${point.id} of ${server} is ${age} old, older than maxAge ${most}`);
  }
  return point;
}

async function found(from: PointSources, wish: PointWish): Promise<ListedPoint> {
  const { server, point: id, atMs, at } = wish;
  if (id !== null && atMs === null) {
    const point = await from.store.point(id);
    if (point.server === server) return point;
    throw refuse(`point ${id} is of ${point.server}, not of ${server}`);
  }
  const isVerified = at === 'latest-verified';
  const point = await newest(from, { server, atMs, isVerified });
  if (point !== null) return point;
  if (!(await from.store.servers()).some((known) => known.server === server)) {
    throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
  }
  const kind = isVerified ? 'whole point whose boot check has passed' : 'whole point';
  const when = atMs === null ? '' : ` at ${new Date(atMs).toISOString()}`;
  throw refuse(`${server} has no ${kind}${when}`);
}

/** The newest whole point that is not known to be damaged; null: none. */
export async function newest(
  { store, verdicts }: PointSources,
  wish: { readonly server: string; readonly atMs: number | null; readonly isVerified: boolean },
): Promise<ListedPoint | null> {
  const { server, atMs, isVerified } = wish;
  // By the order of commits: the clock of a recovery instance may be behind that of the original.
  const last = atMs === null && !isVerified ? await store.lastCommitted(server) : null;
  if (last !== null && !last.isDamaged) return last;
  const filter = { server, limit: PAGE, ...(atMs !== null && { toMs: atMs }) };
  for (let after: string | undefined; ; ) {
    const page = await store.points(after === undefined ? filter : { ...filter, after });
    const whole = page.filter((each) => each.missingVolumes.length === 0 && !each.isDamaged);
    const verified = isVerified ? await verdicts.of(whole.map(({ id }) => id)) : null;
    const point = whole.find(({ id }) => verified === null || verified.get(id) === true);
    if (point !== undefined) return point;
    if (page.length < PAGE) return null;
    after = page.at(-1)!.id;
  }
}
