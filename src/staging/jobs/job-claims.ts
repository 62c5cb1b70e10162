/**
 * Who may bring a server up for real, or home, beside whom. A job says it by its record, so staging's next
 * life knows the same; `jobs.ts` asks and takes the new job into its list in one breath, so that of two that
 * come at the same instant one is refused. Pure.
 *
 *   wanted            beside a failover   beside a plan's failover   beside a failback
 *   failover          asked (`yes`)       asked, but as its member   refused
 *   failover again    asked               asked                      its own instance, or asked
 *   plan's failover   refused             refused                    refused
 *   failback          goes                refused                    refused
 */
import type { ErrorCode } from '../../base/errors.ts';
import type { Job } from './job-state.ts';

export type Claimant = Pick<Job, 'id' | 'kind' | 'server' | 'options' | 'state' | 'outcome'>;

export interface Clash {
  readonly code: ErrorCode;
  readonly message: string;
  /** An operator may say that both are wanted. */
  readonly isAsked: boolean;
}

/** Null: nothing is in the way. `isAgain`: what a failover has kept is to be started once more. */
export function clashOf(
  wanted: Claimant,
  others: Iterable<Claimant>,
  isAgain = false,
): Clash | null {
  const servers = claimedBy(wanted);
  if (servers.length === 0) return null;
  let asked: Clash | null = null;
  for (const other of others) {
    if (isFamily(wanted, other) || !isOpen(other)) continue;
    const server = claimedBy(other).find((each) => servers.includes(each));
    const clash = server === undefined ? null : clashWith(other, { server, wanted, isAgain });
    if (clash?.isAsked === false) return clash;
    asked ??= clash;
  }
  return asked;
}

/** As the failover of a plan with this server. */
export function clashOfMember(server: string, others: Iterable<Claimant>): Clash | null {
  const options = { kind: 'failover', points: JSON.stringify({ [server]: { problem: null } }) };
  const plan = {
    id: '',
    kind: 'plan',
    server: '',
    options,
    state: 'planned',
    outcome: null,
  } as const;
  return clashOf(plan, others);
}

/** The servers that a job brings up for real, or home. */
function claimedBy({ kind, server, options }: Claimant): readonly string[] {
  if (kind === 'failover' || kind === 'failback') return [server];
  if (kind !== 'plan' || options.kind !== 'failover') return [];
  const points = JSON.parse(String(options.points ?? '{}')) as Record<string, { problem: unknown }>;
  // A member that cannot be launched takes nothing; where it is retried, its own launch asks.
  return Object.keys(points).filter((name) => points[name]!.problem === null);
}

/** A failback has the name until its cleanup has given it back. */
const isOpen = ({ kind, state, outcome }: Claimant): boolean =>
  kind === 'failback' ? state !== 'cleaned' : outcome === null;

/** A plan and the jobs of its members, which bear its id. */
const planOf = (id: string): string => id.split('.', 1)[0]!;
const isFamily = (one: Claimant, other: Claimant): boolean =>
  one.id === other.id || one.id === planOf(other.id) || planOf(one.id) === other.id;

interface Wish {
  readonly server: string;
  readonly wanted: Claimant;
  readonly isAgain: boolean;
}

function clashWith(other: Claimant, { server, wanted, isAgain }: Wish): Clash | null {
  const isMember = planOf(wanted.id) !== wanted.id;
  if (other.kind === 'failback') {
    if (isAgain && other.options.job === wanted.id) return null;
    const message = `failback ${other.id} of ${server} is under way: finish or cancel it first`;
    return { code: 'ERR_FAILBACK_STATE', message, isAsked: isAgain };
  }
  if (wanted.kind === 'failback') {
    if (other.kind === 'failover') return null;
    const message = `plan ${other.id} brings ${server} up for real: stop it first (plan stop)`;
    return { code: 'ERR_FAILBACK_STATE', message, isAsked: false };
  }
  const isAsked = wanted.kind === 'failover' && !isMember;
  const message = `job ${other.id}, a ${other.kind}, brings ${server} up for real already`;
  return { code: isAsked ? 'ERR_FAILOVER_SOURCE' : 'ERR_JOB_RUNNING', message, isAsked };
}
