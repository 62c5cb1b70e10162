/**
 * A recovery plan: which servers are brought back, in which order, and what is run between. JSON written by
 * people, so every field is checked, an unknown one is an error, and messages name the path of the field:
 * "groups[0].members[1].server". Pure. What is kept and shown is the plan with all defaults filled in.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { Fields } from './plan-fields.ts';

export type PlanKind = 'drill' | 'failover';
export const planKinds: readonly PlanKind[] = ['drill', 'failover'];

export interface PlanScript {
  /** Name of a file in the folder of scripts of the staging machine. */
  readonly script: string;
  readonly arguments: readonly string[];
  readonly timeoutMs: number;
  readonly isCritical: boolean;
}

/** How a member is launched. */
export interface MemberLaunch {
  /** Where the file says it: "groups[0].members[1].drill". */
  readonly place: string;
  readonly target: string;
  /** Of the target, by the names of the API. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
  /** EC2 launch plan; null: none. */
  readonly plan: Readonly<Record<string, unknown>> | null;
}

export interface PlanMember {
  readonly server: string;
  /** Its failure stops the plan. */
  readonly isCritical: boolean;
  readonly launches: Readonly<Record<PlanKind, MemberLaunch>>;
  /** Id of a point; null: by `at`. */
  readonly point: string | null;
  readonly at: 'latest' | 'latest-verified';
  /** A point that is older is refused; null: any age. */
  readonly maxAgeMs: number | null;
  readonly waitFor: 'up' | 'check';
  readonly timeoutMs: number;
}

export interface PlanGroup {
  readonly name: string;
  readonly waitBeforeMs: number;
  readonly waitAfterMs: number;
  readonly pre: readonly PlanScript[];
  readonly post: readonly PlanScript[];
  readonly members: readonly PlanMember[];
}

export interface Plan {
  readonly name: string;
  readonly description: string;
  /** Members of a group that are launched at the same time. */
  readonly parallel: number;
  readonly groups: readonly PlanGroup[];
}

/** Of plans, groups: letters, digits, dot, line, underline. */
export const PLAN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
export const SCRIPT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const SERVER = /^[^\s/]{1,128}$/;
const POINT = /^[\w.:-]{1,128}$/;
const TARGET = /^[a-z0-9-]{1,32}$/;
const MAX_GROUPS = 100;
const MAX_MEMBERS = 200;
const MAX_SCRIPTS = 20;
const MAX_ARGUMENTS = 64;
const DAY_MS = 86_400_000;

/** ERR_PLAN_FILE names the field. */
export function parsePlan(value: unknown): Plan {
  const fields = new Fields(value, '');
  const plan: Plan = {
    name: fields.text('name', PLAN_NAME, 'a short name: letters, digits, . _ -'),
    description: fields.optionalText('description', /^[^\n]{0,200}$/, 'one line') ?? '',
    parallel: fields.count('parallel', 1, 64, 2),
    groups: fields.list('groups', 1, MAX_GROUPS).map(groupOf),
  };
  fields.end();
  refuseTwice(plan);
  return plan;
}

function groupOf(fields: Fields): PlanGroup {
  const group: PlanGroup = {
    name: fields.text('name', PLAN_NAME, 'a short name: letters, digits, . _ -'),
    waitBeforeMs: fields.duration('waitBefore', 0, DAY_MS, 0),
    waitAfterMs: fields.duration('waitAfter', 0, DAY_MS, 0),
    pre: fields.oneOrMore('pre', MAX_SCRIPTS).map(scriptOf),
    post: fields.oneOrMore('post', MAX_SCRIPTS).map(scriptOf),
    members: fields.list('members', 0, MAX_MEMBERS).map(memberOf),
  };
  fields.end();
  return group;
}

function scriptOf(fields: Fields): PlanScript {
  const script: PlanScript = {
    script: fields.text('script', SCRIPT_NAME, 'the name of a file in --scripts-dir, no path'),
    arguments: fields.texts('arguments', MAX_ARGUMENTS),
    timeoutMs: fields.duration('timeout', 1000, DAY_MS, 300_000),
    isCritical: fields.flag('isCritical', true),
  };
  fields.end();
  return script;
}

function memberOf(fields: Fields): PlanMember {
  const base = launchOf(fields, { place: '', target: 'qemu', options: {}, plan: null });
  const drill = fields.object('drill');
  const failover = fields.object('failover');
  const member: PlanMember = {
    server: fields.text('server', SERVER, 'the name of a source server'),
    isCritical: fields.flag('isCritical', true),
    launches: {
      drill: drill === null ? base : ended(drill, launchOf(drill, base)),
      failover: failover === null ? base : ended(failover, launchOf(failover, base)),
    },
    point: fields.optionalText('point', POINT, 'the id of a recovery point'),
    at: fields.choice('at', ['latest', 'latest-verified'], 'latest'),
    maxAgeMs: fields.optionalDuration('maxAge', 1000, 3650 * DAY_MS),
    waitFor: fields.choice('waitFor', ['up', 'check'], 'up'),
    timeoutMs: fields.duration('timeout', 1000, 7 * DAY_MS, 1_800_000),
  };
  if (member.point !== null && fields.has('at')) throw fields.wrong('at', 'goes without a point');
  fields.end();
  return member;
}

function ended<Value>(fields: Fields, value: Value): Value {
  fields.end();
  return value;
}

/** What is not said is as in `base`; options are added to its options. */
function launchOf(fields: Fields, base: MemberLaunch): MemberLaunch {
  const target = fields.optionalText('target', TARGET, 'qemu, export or ec2') ?? base.target;
  // Options are of a target: those of another one would be refused.
  const inherited = target === base.target ? base.options : {};
  return {
    place: fields.place,
    target,
    options: { ...inherited, ...fields.values('options') },
    plan: fields.anyObject('plan') ?? (target === base.target ? base.plan : null),
  };
}

function refuseTwice({ groups }: Plan): void {
  const seen = new Map<string, string>();
  const see = (kind: string, name: string, path: string) => {
    const former = seen.get(`${kind} ${name}`);
    if (former !== undefined) {
      throw new UnderstudyError('ERR_PLAN_FILE', `${path}: ${kind} "${name}" is ${former} already`);
    }
    seen.set(`${kind} ${name}`, path);
  };
  for (const [g, group] of groups.entries()) {
    see('group', group.name, `groups[${g}].name`);
    for (const [m, { server }] of group.members.entries()) {
      see('server', server, `groups[${g}].members[${m}].server`);
    }
    if (group.members.length + group.pre.length + group.post.length === 0) {
      throw new UnderstudyError('ERR_PLAN_FILE', `groups[${g}]: neither members nor scripts`);
    }
  }
}
