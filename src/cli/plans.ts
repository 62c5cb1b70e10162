/** What the commands about plans share: reading the file of a plan, and steps and dry runs as text. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import type { ApiJob, ApiPlan, ApiPlanCheck } from '../staging/api-types.ts';
import { type Column, renderFields, renderTable } from './table.ts';

type Json = Record<string, unknown>;
type Step = NonNullable<ApiJob['steps']>[number];
type MemberCheck = ApiPlanCheck['members'][number];

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new UnderstudyError('ERR_USAGE', `cannot read ${path}: ${code}`, { path }, cause);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new UnderstudyError('ERR_PLAN_FILE', `${path} is not JSON: ${why}`, { path }, cause);
  }
}

/** The plan in a file; EC2 launch plans that it names as files are put in. ERR_USAGE, ERR_PLAN_FILE. */
export async function readPlanFile(path: string): Promise<Json> {
  const plan = await readJson(path);
  if (!isObject(plan)) throw new UnderstudyError('ERR_PLAN_FILE', `${path} is no JSON object`);
  for (const group of listOf(plan.groups).filter(isObject)) {
    for (const member of listOf(group.members).filter(isObject)) {
      for (const launch of [member, member.drill, member.failover].filter(isObject)) {
        if (typeof launch.plan !== 'string') continue;
        launch.plan = await readJson(resolve(dirname(path), launch.plan));
      }
    }
  }
  return plan;
}

export const planColumns: readonly Column<ApiPlan>[] = [
  { title: 'PLAN', cell: ({ name }) => name },
  { title: 'GROUPS', cell: ({ groups }) => groups.join(', '), isText: true },
  { title: 'SERVERS', cell: ({ servers }) => servers.join(', '), isText: true },
  { title: 'APPLIED', cell: ({ appliedAt }) => appliedAt, leftOut: 1 },
  { title: 'DESCRIPTION', cell: ({ description }) => description, isText: true, leftOut: 2 },
];

export function renderPlan({ file, appliedAt, name }: ApiPlan): string {
  const fields: [string, string][] = [
    ['plan', name],
    ['applied', appliedAt],
  ];
  return `${renderFields(fields)}\n\n${JSON.stringify(file, null, 2)}`;
}

const optionalText = (isCritical: boolean): string => (isCritical ? '' : ', optional');

function tookText({ startedAt, endedAt }: Step): string {
  if (startedAt === null || endedAt === null) return '-';
  return formatDuration(Date.parse(endedAt) - Date.parse(startedAt));
}

const stepColumns: readonly Column<Step>[] = [
  { title: 'STEP', cell: ({ number }) => String(number), alignRight: true },
  { title: 'GROUP', cell: ({ group }) => group },
  { title: 'WHAT', cell: ({ kind, name }) => (kind === 'wait' ? name : `${kind} ${name}`) },
  { title: 'STATE', cell: ({ state, isCritical }) => `${state}${optionalText(isCritical)}` },
  { title: 'TRIES', cell: ({ attempt }) => String(attempt), alignRight: true, leftOut: 2 },
  { title: 'TOOK', cell: tookText, alignRight: true, leftOut: 4 },
  { title: 'JOB', cell: ({ job }) => job ?? '-', leftOut: 3 },
  { title: 'POINT', cell: ({ point }) => point ?? '-', leftOut: 1 },
  { title: 'ERROR', cell: ({ error }) => (error === null ? '' : error.message), isText: true },
];

/** A line a step. */
export const renderSteps = (steps: readonly Step[], room: number | null): string =>
  renderTable(steps, stepColumns, room);

const pointText = ({ point, ageMs }: MemberCheck): string =>
  point === null ? '-' : `${point} (${formatDuration(Math.max(0, ageMs!))} old)`;
const verifiedText = (isVerified: boolean | null): string =>
  isVerified === null ? '-' : isVerified ? 'verified' : 'failed';
const problemText = ({ problem }: Pick<MemberCheck, 'problem'>): string =>
  problem === null ? 'fine' : `${problem.message} (${problem.code})`;

const memberColumns: readonly Column<MemberCheck>[] = [
  { title: 'GROUP', cell: ({ group }) => group },
  { title: 'SERVER', cell: (each) => `${each.server}${optionalText(each.isCritical)}` },
  { title: 'TARGET', cell: ({ target }) => target, leftOut: 2 },
  { title: 'POINT', cell: pointText, leftOut: 1 },
  { title: 'BOOTED', cell: ({ isVerified }) => verifiedText(isVerified) },
  { title: 'VERDICT', cell: problemText, isText: true },
];

const scriptColumns: readonly Column<ApiPlanCheck['scripts'][number]>[] = [
  { title: 'GROUP', cell: ({ group }) => group },
  {
    title: 'SCRIPT',
    cell: (each) => `${each.when} ${each.script}${optionalText(each.isCritical)}`,
  },
  { title: 'VERDICT', cell: problemText, isText: true },
];

export function renderPlanCheck(
  { name, kind, isReady, members, scripts }: ApiPlanCheck,
  room: number | null = null,
): string {
  const failing = [...members, ...scripts].filter(({ problem }) => problem !== null).length;
  const fine =
    failing === 0 ? 'nothing is in its way' : `it can be run; ${failing} optional will fail`;
  const verdict = isReady ? fine : 'it cannot be run as it is';
  return [
    renderFields([
      ['plan', name],
      ['as a', kind],
      ['verdict', verdict],
    ]),
    ...(members.length === 0 ? [] : [renderTable(members, memberColumns, room)]),
    ...(scripts.length === 0 ? [] : [renderTable(scripts, scriptColumns, room)]),
  ].join('\n\n');
}
