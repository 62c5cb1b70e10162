/** Takes the lease of a repository before anything in it is changed, where others could reach it. */
import type { Paths } from '../format/layout.ts';
import { makeFolder } from '../format/object-file.ts';
import { Lease, type LeaseTimes, type LeaseWorld } from './lease.ts';
import { highestTerm } from './terms.ts';

export interface LeaseHolder {
  /** 32 hex digits, chosen at random by this process. */
  readonly holder: string;
  /** Shown to whoever finds the repository in use. */
  readonly host: string;
  readonly times?: LeaseTimes;
}

type LeasedWorld = Pick<LeaseWorld, 'disk' | 'clock' | 'log'> & {
  readonly leaseBy?: LeaseHolder | undefined;
  /** It commits nothing of its own: see LeaseWorld. */
  readonly goesOn?: boolean;
};

/**
 * Null where nobody else can reach the repository. `knownTerm`: the lease's term is above it, whatever
 * the repository says. ERR_REPOSITORY_IN_USE.
 */
export async function takeLease(
  { disk, clock, log, leaseBy, goesOn = false }: LeasedWorld,
  paths: Paths,
  knownTerm = 0,
): Promise<Lease | null> {
  if (leaseBy === undefined) return null;
  const highest = await highestTerm(disk, paths.terms);
  await makeFolder(disk, paths.temporary);
  let next = 0;
  const temporary = () => {
    next += 1;
    return `${paths.temporary}/${next}.lease`;
  };
  const world = { disk, clock, log, folder: paths.lease, repo: paths.repo, temporary };
  return Lease.take({ ...world, goesOn, knownTerm: Math.max(highest, knownTerm), ...leaseBy });
}
