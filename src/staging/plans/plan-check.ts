/**
 * The dry run of a plan, and the choice that a real run begins with: which point each server would be
 * brought back from, whether it can be launched with its options, whether the scripts are there. Makes nothing.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { LaunchOptions } from '../../recovery/runner.ts';
import { asUnderstudyError, errorBody } from '../api-errors.ts';
import type { JobError } from '../jobs/job-state.ts';
import type { Jobs, LaunchRequest, ShownJob } from '../jobs/jobs.ts';
import { choosePoint, type PointSources } from './choose-point.ts';
import type { MemberLaunch, Plan, PlanKind, PlanMember, PlanScript } from './plan-file.ts';
import type { Scripts } from './scripts.ts';

export interface MemberCheck {
  readonly group: string;
  readonly server: string;
  readonly isCritical: boolean;
  readonly target: string;
  readonly point: string | null;
  readonly pointTime: string | null;
  readonly ageMs: number | null;
  /** Whether its boot check passed; null: there was none. */
  readonly isVerified: boolean | null;
  /** What is in the way; null: nothing. */
  readonly problem: JobError | null;
}

export interface ScriptCheck {
  readonly group: string;
  readonly when: 'pre' | 'post';
  readonly script: string;
  readonly isCritical: boolean;
  readonly problem: JobError | null;
}

export interface PlanCheck {
  readonly name: string;
  readonly kind: PlanKind;
  /** Nothing critical is in the way. */
  readonly isReady: boolean;
  readonly members: readonly MemberCheck[];
  readonly scripts: readonly ScriptCheck[];
}

export interface CheckPorts {
  readonly points: PointSources;
  readonly scripts: Scripts;
  readonly jobs: Pick<Jobs, 'check' | 'list'>;
}

export interface CheckWish {
  readonly kind: PlanKind;
  readonly atMs: number | null;
  readonly nowMs: number;
}

export const problemOf = (error: unknown): JobError => errorBody(error).error;

/** Only what nobody expects is thrown. */
export async function checkPlan(ports: CheckPorts, plan: Plan, wish: CheckWish) {
  const members: MemberCheck[] = [];
  const scripts: ScriptCheck[] = [];
  for (const group of plan.groups) {
    for (const member of group.members) {
      members.push(await checkMember(ports, { group: group.name, member }, wish));
    }
    const checked = (when: 'pre' | 'post') => (script: PlanScript) =>
      checkScript(ports.scripts, { group: group.name, when, script });
    scripts.push(...group.pre.map(checked('pre')), ...group.post.map(checked('post')));
  }
  const isInTheWay = (each: MemberCheck | ScriptCheck) => each.isCritical && each.problem !== null;
  const isReady = ![...members, ...scripts].some(isInTheWay);
  return { name: plan.name, kind: wish.kind, isReady, members, scripts } satisfies PlanCheck;
}

async function checkMember(
  { points, jobs }: CheckPorts,
  { group, member }: { group: string; member: PlanMember },
  { kind, atMs, nowMs }: CheckWish,
): Promise<MemberCheck> {
  const { server, isCritical, launches, at, maxAgeMs } = member;
  let found: Pick<MemberCheck, 'point' | 'pointTime' | 'ageMs' | 'isVerified'> = {
    ...{ point: null, pointTime: null, ageMs: null, isVerified: null },
  };
  let problem: JobError | null = null;
  try {
    const wish = { server, at, maxAgeMs, atMs, nowMs, point: member.point };
    const { id, time } = await choosePoint(points, wish);
    const isVerified = (await points.verdicts.of([id])).get(id) ?? null;
    found = { point: id, pointTime: time, ageMs: nowMs - Date.parse(time), isVerified };
    if (kind === 'failover') refuseTwice(jobs, server);
    await jobs.check(launchRequest(member, kind, id));
  } catch (error) {
    problem = problemOf(expected(error));
  }
  return { group, server, isCritical, target: launches[kind].target, ...found, problem };
}

/** One server, one stand-in: of a failover that runs, or of a plan that will come to it. */
function refuseTwice(jobs: CheckPorts['jobs'], server: string): void {
  const isItsOwn = ({ kind, options, ...job }: ShownJob) =>
    (kind === 'failover' && job.server === server) ||
    (kind === 'plan' && options.kind === 'failover' && serversOf(options).includes(server));
  const other = jobs.list().find((job) => job.outcome === null && isItsOwn(job));
  if (other === undefined) return;
  const message = `job ${other.id}, a ${other.kind}, brings ${server} up for real already`;
  throw new UnderstudyError('ERR_JOB_RUNNING', message);
}

const serversOf = ({ points }: LaunchOptions): readonly string[] =>
  Object.keys(JSON.parse(String(points)));

function checkScript(
  scripts: Scripts,
  { group, when, script }: { group: string; when: 'pre' | 'post'; script: PlanScript },
): ScriptCheck {
  let problem: JobError | null = null;
  try {
    scripts.pathOf(script.script);
  } catch (error) {
    problem = problemOf(expected(error));
  }
  return { group, when, script: script.script, isCritical: script.isCritical, problem };
}

/** A defect is not a finding about the plan. */
function expected(error: unknown): UnderstudyError {
  const known = asUnderstudyError(error);
  if (known.code === 'ERR_BUG') throw error;
  return known;
}

/** What a member is launched as. A failover's machine stays up behind its check. */
export function launchRequest(
  { launches, waitFor }: PlanMember,
  kind: PlanKind,
  point: string,
): LaunchRequest {
  const { target, options, plan }: MemberLaunch = launches[kind];
  const check = waitFor === 'check' ? { check: true } : {};
  const stays = waitFor === 'check' && kind === 'failover' ? { keepRunning: true } : {};
  const launchPlan = plan === null ? {} : { plan: JSON.stringify(plan) };
  return { kind, point, target, options: { ...options, ...check, ...stays, ...launchPlan } };
}
