/** Schemas of plans in the OpenAPI document: a part of openapi-schemas.ts, held by the same test. */
import { checkOutcomes } from '../plans/check-schedule.ts';
import { planKinds } from '../plans/plan-file.ts';
import { stepKinds, stepStates } from '../plans/plan-state.ts';
import {
  choice,
  count,
  flag,
  list,
  map,
  object,
  orNull,
  reference,
  type Schema,
  text,
} from './schema.ts';

const problem = orNull(reference('JobError'));
const launch = {
  target: text('qemu (the default), export or ec2'),
  options: map('Of the target, by the names of the API'),
  plan: map('EC2 launch plan'),
};
const scripts: Schema = {
  oneOf: [text('Name'), reference('PlanScript'), list(reference('PlanScript'))],
  description: 'One after the other',
};

const fileSchemas: Readonly<Record<string, Schema>> = {
  PlanFile: object(
    {
      name: text('Letters, digits, . _ -'),
      description: text('One line'),
      parallel: count('Members of a group that are launched at the same time (2)'),
      groups: list(reference('PlanGroup'), 'In their order'),
    },
    ['name', 'groups'],
  ),
  PlanGroup: object(
    {
      name: text('Letters, digits, . _ -'),
      waitBefore: text('"30s": before its scripts and members'),
      waitAfter: text('After them'),
      pre: { ...scripts, description: 'Before its members' },
      post: { ...scripts, description: 'After them' },
      members: list(reference('PlanMember'), 'Beside each other'),
    },
    ['name'],
  ),
  PlanScript: object(
    {
      script: text('Name of a file in the folder that staging was given'),
      arguments: list(text('An argument')),
      timeout: text('"5m" (the default)'),
      isCritical: flag('Its failure stops the plan (true)'),
    },
    ['script'],
  ),
  PlanMember: object(
    {
      server: text('Source server'),
      isCritical: flag('Its failure stops the plan (true)'),
      ...launch,
      drill: object(launch, []),
      failover: object(launch, []),
      point: text('Id of a point; else by `at`'),
      at: choice(['latest', 'latest-verified']),
      maxAge: text('"1h": an older point is refused'),
      waitFor: choice(['up', 'check']),
      timeout: text('"30m" (the default)'),
    },
    ['server'],
  ),
};

const checkSchemas: Readonly<Record<string, Schema>> = {
  ServerCheck: object({
    server: text('Source server'),
    everyMs: count('The newest point is booted once in this time; 0: never'),
    options: map('Of the target qemu'),
    isDefault: flag('The policy is that of the service'),
    defaultEveryMs: count('That of the service'),
    state: choice(['off', 'waiting', 'running']),
    nextMs: orNull(count('When the next is due, ms since 1970, if a point has not booted by then')),
    waitsFor: orNull(text('The job for whose end a check that is due waits')),
    failures: count('In a row'),
    last: orNull(reference('LastCheck')),
  }),
  LastCheck: object({
    point: text('Recovery point'),
    pointTime: text('Its T, ISO 8601'),
    job: orNull(text('Null: the launch was refused')),
    startedAt: text('ISO 8601'),
    outcome: orNull(choice(checkOutcomes)),
    detail: text('What decided'),
    endedAt: orNull(text('ISO 8601')),
  }),
  ServerCheckRequest: object(
    {
      everyMs: orNull(count('0: never; null: as the service does')),
      options: orNull(map('Of the target qemu, over those of the service')),
    },
    [],
  ),
};

const plan = {
  name: text('Name'),
  description: text('One line; may be empty'),
  appliedAt: text('ISO 8601'),
  groups: list(text('Name of a group'), 'In their order'),
  servers: list(text('Source server')),
  file: reference('PlanFile'),
};

export const planSchemas: Readonly<Record<string, Schema>> = {
  ...fileSchemas,
  ...checkSchemas,
  Plan: object(plan),
  AppliedPlan: object({
    ...plan,
    missing: list(text('What it needs and is not here: a server, a script')),
  }),
  Plans: object({ plans: list(reference('Plan')) }),
  PlanRemoved: object({ removed: text('Name') }),
  PlanRequest: object(
    {
      at: orNull(text('ISO 8601: all servers as they were then; else as the plan says')),
      yes: flag('Of a failover: also where source servers run'),
    },
    [],
  ),
  PlanRetry: object(
    {
      step: count('Number of the step, from 1'),
      point: orNull(text('Another point for a member: an id, or latest')),
    },
    ['step'],
  ),
  PlanAccept: object({ step: count('Number of the step, from 1') }),
  PlanCheck: object({
    name: text('Plan'),
    kind: choice(planKinds),
    isReady: flag('Nothing critical is in the way'),
    members: list(reference('PlanMemberCheck')),
    scripts: list(reference('PlanScriptCheck')),
  }),
  PlanMemberCheck: object({
    group: text('Group'),
    server: text('Source server'),
    isCritical: flag('Its failure stops the plan'),
    target: text('qemu, export or ec2'),
    point: orNull(text('Recovery point that would be taken')),
    pointTime: orNull(text('Its T, ISO 8601')),
    ageMs: orNull({ type: 'number', description: 'Milliseconds since then' }),
    isVerified: orNull(flag('Its boot check passed; null: there was none')),
    problem,
  }),
  PlanScriptCheck: object({
    group: text('Group'),
    when: choice(['pre', 'post']),
    script: text('Name'),
    isCritical: flag('Its failure stops the plan'),
    problem,
  }),
  PlanStep: object({
    number: count('From 1'),
    group: text('Group'),
    kind: choice(stepKinds),
    name: text('The server, the script, or how long'),
    isCritical: flag('Its failure stops the plan'),
    state: choice(stepStates),
    attempt: count('How often it was begun'),
    job: orNull(text('Of a member: its job')),
    point: orNull(text('Of a member: its recovery point')),
    pointTime: orNull(text('T of the point, ISO 8601')),
    error: problem,
    startedAt: orNull(text('ISO 8601')),
    endedAt: orNull(text('ISO 8601')),
  }),
};
