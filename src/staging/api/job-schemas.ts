/** Schemas of jobs in the OpenAPI document: a part of openapi-schemas.ts, held by the same test. */
import { jobKinds } from '../../recovery/runner.ts';
import { jobStates } from '../jobs/job-state.ts';
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

const verdict = {
  passed: flag('It booted'),
  probe: text('What was waited for: console, serial:USER, tcp:PORT, http:PORT/PATH, ssh:USER@PORT'),
  bootMs: count('From the start of the machine to the verdict, milliseconds'),
  detail: text('The line of the console, or the answer, that decided'),
};
const outcome = choice(['done', 'failed', 'cancelled']);

export const jobSchemas: Readonly<Record<string, Schema>> = {
  DrillRequest: {
    type: 'object',
    required: ['point'],
    properties: {
      point: text('Id of the recovery point'),
      target: text('qemu (the default), export or ec2'),
      options: map('Of the target: see the options of drill start'),
    },
  },
  FailoverRequest: {
    type: 'object',
    required: ['point'],
    properties: {
      point: text('Id of the recovery point'),
      target: text('qemu (the default) or ec2'),
      options: map('Of the target: see the options of failover start'),
      yes: flag('Also where the source replicates now or a failover of it runs, and both will run'),
    },
  },
  AgainRequest: {
    type: 'object',
    properties: {
      yes: flag('Also where the source replicates now or a failover of it runs, and both will run'),
    },
  },
  StopRequest: {
    type: 'object',
    properties: {
      timeoutMs: count(
        'Of a failover: so long the guest may take to shut down; then it is cut off',
      ),
    },
  },
  BootCheckResult: object(verdict),
  Made: {
    type: 'object',
    required: ['kind', 'name'],
    properties: {
      kind: text('process (name: its pidfile), folder, file, ec2-launch (its record), job, script'),
      name: text('Path'),
      isProduct: flag('Stays when the job is done'),
    },
  },
  JobError: object({
    code: text('Stable code of the error'),
    message: text('What went wrong'),
    hint: text('What to do next'),
  }),
  Job: object({
    id: text('Sorts by time'),
    kind: choice(jobKinds),
    target: text('Of a launch: qemu, export or ec2; else empty'),
    server: text('Source server; empty where the job is about several'),
    point: text('Recovery point; empty where the job is no launch of one'),
    pointTime: text('T of the point, ISO 8601; empty without one'),
    options: map('Of the target, defaults filled in'),
    state: choice(jobStates),
    outcome: orNull(outcome),
    ending: orNull(outcome),
    phase: text('What is being done'),
    access: orNull(map('How to reach what runs, or where what was made lies')),
    check: orNull(reference('BootCheckResult')),
    error: orNull(reference('JobError')),
    cleanError: orNull(text('Why the last try to clean up failed')),
    cleanTries: count('So many tries have failed, one after the other'),
    cleanAgainAt: orNull(text('When the next try is, ISO 8601')),
    made: list(reference('Made')),
    keeps: flag('What it made as a product holds data of its own: it goes by a discard alone'),
    standsAlone: flag('Nothing of the point is needed any more'),
    damage: list(
      object({
        volume: text('As the agent named it'),
        offset: count('First byte'),
        length: count('Bytes from there that cannot be given back'),
      }),
    ),
    isDiscarded: flag('What it kept was thrown away'),
    starts: count('1, and one more each time it was started again'),
    createdAt: text('ISO 8601'),
    endedAt: orNull(text('ISO 8601')),
    progress: orNull(
      object({ done: count('Bytes (of a plan: steps) done'), total: count('In all') }),
    ),
    unwritten: orNull(
      text('Why its newest state could not be written down (no room); tried again'),
    ),
    folder: text('Where log and evidence lie on the staging machine'),
    steps: orNull({ ...list(reference('PlanStep')), description: 'Of a plan that has begun' }),
  }),
  Jobs: object({ jobs: list(reference('Job')) }),
  Uncleaned: object({
    job: text('Job that is over'),
    kind: choice(jobKinds),
    server: text('Source server; empty where the job is about several'),
    target: text('Of a launch: qemu, export or ec2; what is left in a cloud costs money'),
    error: text('Why the last try to clean up failed'),
    tries: count('So many have failed'),
    againAt: orNull(text('When it is tried again, ISO 8601')),
  }),
  JobLog: object({ text: text('Lines "TIME TEXT"') }),
  BootCheck: object({
    ...verdict,
    point: text('Recovery point'),
    server: text('Source server'),
    job: text('Job that checked'),
    time: text('When, ISO 8601'),
  }),
  PointBootCheck: object({ check: orNull(reference('BootCheck')) }),
};
