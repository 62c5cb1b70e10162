/** What a script of a plan is told: a small environment of its own, and JSON on standard input. Pure. */
import type { ShownJob } from '../jobs/jobs.ts';
import type { PlanGroup, PlanKind } from './plan-file.ts';
import type { PlanRun } from './plan-state.ts';

export interface ScriptWorld {
  readonly plan: string;
  readonly kind: PlanKind;
  readonly job: string;
  readonly group: PlanGroup;
  readonly run: PlanRun;
}

/** Nothing of the service's own: its environment may hold credentials. */
export function scriptEnvironment({ plan, kind, job, group }: ScriptWorld): Record<string, string> {
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    LANG: 'C.UTF-8',
    UNDERSTUDY_PLAN: plan,
    UNDERSTUDY_JOB: job,
    UNDERSTUDY_GROUP: group.name,
    UNDERSTUDY_KIND: kind,
    UNDERSTUDY_SERVERS: group.members.map(({ server }) => server).join(' '),
  };
}

/** The members of all groups, as they are: how to reach those that run. */
export function scriptInput(
  { plan, kind, job, group, run }: ScriptWorld,
  jobOf: (id: string | null) => ShownJob | null,
): string {
  const members = run.steps
    .filter((step) => step.kind === 'member')
    .map((step) => ({
      ...{ group: step.group, server: step.name, state: step.state, job: step.job },
      ...{ point: step.point, pointTime: step.pointTime, access: jobOf(step.job)?.access ?? null },
    }));
  return `${JSON.stringify({ plan, kind, job, group: group.name, members }, null, 1)}\n`;
}
