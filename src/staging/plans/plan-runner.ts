/**
 * Runs plans as jobs: refuses what cannot work before anything is made, then follows the run
 * (plan-run.ts). The points are chosen when the job is made, and are its options from then on. A drill's job
 * stays up until it is stopped, which ends what its members run, the last first. A failover's job is done
 * when all its steps are: the members are jobs of their own, and no end of the plan touches them.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { parseIsoTime } from '../../base/iso-time.ts';
import type { LaunchEnd, LaunchOptions, Made, Runner, Work } from '../../recovery/runner.ts';
import type { ShownJob } from '../jobs/jobs.ts';
import { type CheckPorts, checkFile, checkPlan, missingOf, type PlanCheck } from './plan-check.ts';
import { type PlanKind, parsePlan, planKinds } from './plan-file.ts';
import { endJob, MADE_JOB, MADE_SCRIPT, type PlanPorts } from './plan-ports.ts';
import { PlanFollower } from './plan-run.ts';
import type { ChosenPoint } from './plan-state.ts';
import type { ShownPlan } from './plan-store.ts';

export interface AppliedPlan extends ShownPlan {
  /** What it needs and is not here: servers, scripts; a line each. */
  readonly missing: readonly string[];
}

export class PlanRunner implements Runner {
  readonly kind = 'plan';
  private readonly ports: PlanPorts;
  private readonly active = new Map<string, PlanFollower>();

  constructor(ports: PlanPorts) {
    this.ports = ports;
  }

  /** Keeps a plan, after a look at all that can be told without points. Durable. ERR_PLAN_FILE. */
  async apply(file: Readonly<Record<string, unknown>>): Promise<AppliedPlan> {
    const plan = parsePlan(file);
    await checkFile(this.ports.jobs, plan);
    const missing = await missingOf(this.checkPorts, plan);
    return { ...(await this.ports.plans.apply(file)), missing };
  }

  /** The dry run. ERR_PLAN_NOT_FOUND, ERR_PLAN_DAMAGED. */
  async dryRun(name: string, kind: PlanKind, atMs: number | null): Promise<PlanCheck> {
    const { plans, clock } = this.ports;
    const plan = parsePlan((await plans.find(name)).file);
    return checkPlan(this.checkPorts, plan, { kind, atMs, nowMs: clock.wallMs() });
  }

  /** Options {plan, kind, at?}. ERR_PLAN_*, ERR_LAUNCH_OPTIONS. */
  async check(given: Readonly<Record<string, unknown>>): Promise<LaunchOptions> {
    const { plan: name, kind, at } = given;
    if (typeof name !== 'string' || !planKinds.includes(kind as PlanKind)) {
      throw new UnderstudyError('ERR_LAUNCH_OPTIONS', 'a plan needs {plan, kind}');
    }
    const atMs = at === undefined || at === null ? null : timeOf(String(at));
    const checked = await this.dryRun(name, kind as PlanKind, atMs);
    if (!checked.isReady) throw notReady(checked);
    const points: Record<string, ChosenPoint> = {};
    for (const { server, point, pointTime, problem } of checked.members) {
      points[server] = { point, pointTime, problem };
    }
    const { file } = await this.ports.plans.find(name);
    return {
      ...{ plan: name, kind: String(kind) },
      ...(atMs !== null && { at: new Date(atMs).toISOString() }),
      ...{ file: JSON.stringify(file), points: JSON.stringify(points) },
    };
  }

  async run(work: Work): Promise<LaunchEnd> {
    const follower = new PlanFollower(this.ports, work);
    this.active.set(work.jobId, follower);
    try {
      return await follower.untilEnd();
    } finally {
      this.active.delete(work.jobId);
    }
  }

  /** Ends scripts, and jobs of members, the last first. One that will not end keeps none of the others running. */
  async clean(made: readonly Made[]): Promise<void> {
    const errors: unknown[] = [];
    for (const { kind, name } of made.toReversed()) {
      if (kind === MADE_JOB) await endJob(this.ports, name).catch((error) => errors.push(error));
      if (kind === MADE_SCRIPT) {
        await this.ports.scripts.end(name).catch((error) => errors.push(error));
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  /**
   * Runs a failed step again and goes on. `point`: another point for a member, an id or "latest"; else the
   * one that was chosen. ERR_JOB_NOT_FOUND, ERR_PLAN_STEP, ERR_PLAN_POINT, ERR_POINT_NOT_FOUND.
   */
  async retry(job: string, step: number, point: string | null): Promise<ShownJob> {
    await this.followerOf(job).retry(step, point);
    return this.ports.jobs.find(job);
  }

  /** Takes a failed step as done, where somebody has put it right. ERR_JOB_NOT_FOUND, ERR_PLAN_STEP. */
  async accept(job: string, step: number): Promise<ShownJob> {
    await this.followerOf(job).accept(step);
    return this.ports.jobs.find(job);
  }

  private followerOf(job: string): PlanFollower {
    if (this.ports.jobs.find(job).kind !== 'plan') {
      throw new UnderstudyError('ERR_PLAN_STEP', `job ${job} is no plan`);
    }
    const follower = this.active.get(job);
    if (follower !== undefined) return follower;
    throw new UnderstudyError('ERR_PLAN_STEP', `job ${job} is over: start the plan again`);
  }

  private get checkPorts(): CheckPorts {
    const { store, verdicts, scripts, jobs } = this.ports;
    return { points: { store, verdicts }, scripts, jobs };
  }
}

function notReady({ name, members, scripts }: PlanCheck): UnderstudyError {
  const all = [
    ...members.map(({ server, isCritical, problem }) => ({ what: server, isCritical, problem })),
    ...scripts.map(({ script, isCritical, problem }) => ({ what: script, isCritical, problem })),
  ];
  const critical = all.filter(({ isCritical, problem }) => isCritical && problem !== null);
  const said = critical.slice(0, 3).map(({ what, problem }) => `${what}: ${problem!.message}`);
  const more = critical.length > 3 ? `; ${critical.length - 3} more` : '';
  return new UnderstudyError('ERR_PLAN_CHECK', `plan ${name}: ${said.join('; ')}${more}`);
}

function timeOf(at: string): number {
  const timeMs = parseIsoTime(at);
  if (typeof timeMs === 'number') return timeMs;
  throw new UnderstudyError('ERR_LAUNCH_OPTIONS', `at must be a time with its zone: "${at}"`);
}
