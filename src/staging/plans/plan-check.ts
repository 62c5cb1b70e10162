/**
 * The dry run of a plan, and the choice that a real run begins with: which point each server would be
 * brought back from, whether it can be launched with its options, whether the scripts are there. Makes nothing.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { asUnderstudyError, errorBody } from '../api-errors.ts';
import type { JobError } from '../jobs/job-state.ts';
import type { Jobs, LaunchRequest } from '../jobs/jobs.ts';
import { choosePoint, type PointSources } from './choose-point.ts';
import {
  type MemberLaunch,
  type Plan,
  type PlanKind,
  type PlanMember,
  type PlanScript,
  planKinds,
} from './plan-file.ts';
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
  readonly jobs: Pick<Jobs, 'check' | 'refuseTwice'>;
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
    if (kind === 'failover') jobs.refuseTwice(server);
    await jobs.check(launchRequest(member, kind, id));
  } catch (error) {
    problem = problemOf(expected(error));
  }
  return { group, server, isCritical, target: launches[kind].target, ...found, problem };
}

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

/**
 * What a plan's own file says wrongly of launches, without a look at a point. Where a drill and a failover
 * are launched alike it is read as a drill, which may be all that it is for. ERR_PLAN_FILE names the place.
 */
export async function checkFile(jobs: Pick<Jobs, 'readOptions'>, { groups }: Plan): Promise<void> {
  for (const member of groups.flatMap(({ members }) => members)) {
    const { drill, failover } = member.launches;
    for (const kind of drill === failover ? (['drill'] as const) : planKinds) {
      const { place } = member.launches[kind];
      try {
        await jobs.readOptions(launchRequest(member, kind, ''));
      } catch (error) {
        const { message } = expected(error);
        const said = `${place} (${member.server}, as a ${kind}): ${message}`;
        throw new UnderstudyError('ERR_PLAN_FILE', said, {}, error);
      }
    }
  }
}

/** What the plan needs and is not here, or not yet: a line each. */
export async function missingOf(
  { points, scripts }: Pick<CheckPorts, 'points' | 'scripts'>,
  { groups }: Plan,
): Promise<string[]> {
  const missing: string[] = [];
  const known = new Set((await points.store.servers()).map(({ server }) => server));
  for (const { name, pre, post, members } of groups) {
    for (const { server } of members) {
      if (!known.has(server)) missing.push(`group ${name}: there is no server "${server}"`);
    }
    for (const script of [...pre, ...post]) {
      const { problem } = checkScript(scripts, { group: name, when: 'pre', script });
      if (problem !== null) missing.push(`group ${name}: ${problem.message}`);
    }
  }
  return missing;
}

/** A defect is not a finding about the plan. */
function expected(error: unknown): UnderstudyError {
  const known = asUnderstudyError(error);
  if (known.code === 'ERR_BUG') throw error;
  return known;
}

/**
 * What a member is launched as. Its machine stays up behind its check: of a failover always, of a drill
 * until the plan is stopped, for what comes after may need it; unless its options say otherwise.
 */
export function launchRequest(
  { launches, waitFor }: PlanMember,
  kind: PlanKind,
  point: string,
): LaunchRequest {
  const { target, options, plan }: MemberLaunch = launches[kind];
  const check = waitFor === 'check' ? { check: true } : {};
  const isChecked = waitFor === 'check' || options.check === true || options.probe !== undefined;
  const isBound = kind === 'failover' || options.keepRunning === undefined;
  const stays = isChecked && isBound ? { keepRunning: true } : {};
  const launchPlan = plan === null ? {} : { plan: JSON.stringify(plan) };
  return { kind, point, target, options: { ...options, ...check, ...stays, ...launchPlan } };
}
