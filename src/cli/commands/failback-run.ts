/**
 * `understudy failback run`: on the original machine, in a rescue environment, makes its disks equal to the
 * newest point, again and again while the recovery instance works on, and at last to its last point. No
 * agent runs here. Whatever interrupts it: it is run again, and compares anew.
 */
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { ApiFailback } from '../../staging/api-types.ts';
import type { ListedPoint } from '../../store/types.ts';
import type { CommandContext, CommandSpec } from '../command.ts';
import { chooseTargets, type OpenTarget, openTarget } from '../failback-targets.ts';
import {
  acceptNewestOption,
  activeFailback,
  failbackPath,
  finishFailback,
  followFailback,
  serverOption,
} from '../failbacks.ts';
import { HomeWriter, type PassReport, renderPass } from '../home-writer.ts';
import {
  connect,
  findPoint,
  jsonOption,
  operatorOptions,
  pointPath,
  yesOption,
} from '../operator.ts';
import { patientClient } from '../patient-client.ts';
import type { RestClient } from '../rest-client.ts';
import type { Settings } from '../settings.ts';

interface Run {
  readonly context: CommandContext;
  readonly client: RestClient;
  readonly settings: Settings;
  readonly writer: HomeWriter;
  readonly targets: readonly OpenTarget[];
  /** Null: a point was named, and there is no failback to be told. */
  readonly job: string | null;
  /** Read back at the end. */
  verifiedChunks: number;
}

async function firstPoint(
  context: CommandContext,
  client: RestClient,
  settings: Settings,
): Promise<{ point: ListedPoint; failback: ApiFailback | null }> {
  const server = settings.text('server');
  const named = settings.optionalText('point');
  if (named !== undefined) {
    const choice = { point: named, atMs: undefined, server, isPartialWanted: false };
    const point = await findPoint(client, choice);
    if (point.server !== server) {
      throw new UnderstudyError('ERR_USAGE', `point ${point.id} is of ${point.server}`);
    }
    return { point, failback: null };
  }
  const { job } = await activeFailback(client, server);
  const patient = patientClient(context, client);
  const failback = await followFailback(context, patient, job, ({ phase }) =>
    ['ready', 'finishing', 'fenced'].includes(phase),
  );
  return { point: await pointOf(patient, failback), failback };
}

/** The last point once there is one; before, the one that was committed last (clocks of machines differ). */
async function pointOf(client: RestClient, failback: ApiFailback): Promise<ListedPoint> {
  const { lastPoint, newestPoint, server } = failback;
  const id = lastPoint ?? newestPoint;
  const point = id === null ? null : await client.call<ListedPoint>('GET', pointPath(id));
  if (point !== null && point.missingVolumes.length === 0) return point;
  const choice = { atMs: undefined, server, isPartialWanted: false };
  return findPoint(client, { ...choice, point: 'latest' });
}

/** Null where the point was dropped meanwhile: retention went on while staging was started again. */
async function pass(run: Run, point: ListedPoint): Promise<PassReport | null> {
  let report: PassReport;
  try {
    report = await run.writer.pass(point, run.targets);
  } catch (error) {
    const isGone = error instanceof UnderstudyError && error.code === 'ERR_POINT_NOT_FOUND';
    if (!isGone || run.job === null) throw error;
    run.context.note(`point ${point.id} is gone: the next one is taken`);
    return null;
  }
  if (!run.settings.flag('json')) run.context.print(renderPass(report));
  return report;
}

/** Reads all of it back, then tells staging. */
async function settle(run: Run, report: PassReport): Promise<ApiFailback | null> {
  const scope = run.settings.text('verify') as 'all' | 'written';
  run.verifiedChunks = await run.writer.verify(report.point, run.targets, scope);
  if (run.job === null) return null;
  const { readMachineWords } = await import('../../agent/identity.ts');
  const words = readMachineWords();
  let failback: ApiFailback | null = null;
  for (const { volume, chunks, different, writtenBytes } of run.writer.totals(run.targets)) {
    const body = { volume, point: report.point, chunks, different, writtenBytes, words };
    failback = await run.client.call('POST', `${failbackPath(run.job)}/written`, { body });
  }
  return failback;
}

/** Passes until the point that was written is the last one. */
async function passes(run: Run, first: ListedPoint): Promise<ApiFailback | null> {
  const { context, client, settings, job } = run;
  for (let point = first; ; ) {
    const report = await pass(run, point);
    if (report !== null && (job === null || settings.flag('once'))) return settle(run, report);
    const now = await client.call<ApiFailback>('GET', failbackPath(job!));
    if (now.phase === 'cancelled' || now.phase === 'done') {
      const message = `failback ${job} is ${now.phase}`;
      throw new UnderstudyError('ERR_FAILBACK_STATE', message);
    }
    if (report === null) {
      point = await pointOf(client, now);
      continue;
    }
    if (now.lastPoint === report.point) return settle(run, report);
    const isAsked = now.phase === 'fenced' || now.phase === 'finishing';
    if (settings.flag('finish') && !isAsked) {
      const isSure = settings.flag('yes');
      const acceptNewest = settings.flag('accept-newest');
      point = await pointOf(
        client,
        await finishFailback(context, client, now, { isSure, acceptNewest }),
      );
      continue;
    }
    point = await nextPoint(run, report.point);
  }
}

/** A newer point, or the last one; `--every` lies between two passes. */
async function nextPoint({ context, client, settings, job }: Run, done: string) {
  const fromMs = context.clock.monotonicMs();
  for (;;) {
    context.stop.throwIfAborted();
    const now = await client.call<ApiFailback>('GET', failbackPath(job!));
    const isDue = context.clock.monotonicMs() - fromMs >= settings.number('every');
    if (now.lastPoint !== null) return pointOf(client, now);
    if (now.phase === 'cancelled') {
      throw new UnderstudyError('ERR_FAILBACK_STATE', `failback ${job} is cancelled`);
    }
    if (isDue && now.newestPoint !== done) return pointOf(client, now);
    await sleep(context.clock, 300);
  }
}

function report(run: Run, failback: ApiFailback | null, tookMs: number): void {
  const { context, settings, writer, targets, verifiedChunks } = run;
  const { point } = writer.last!;
  const phase = failback?.phase ?? null;
  if (settings.flag('json')) {
    const volumes = writer.totals(targets);
    const where = { server: settings.text('server'), job: run.job, point, phase };
    const result = { ...where, verified: true, verifiedChunks };
    context.print(JSON.stringify({ ...result, volumes, passes: writer.passes, tookMs }, null, 2));
    return;
  }
  const what = settings.text('verify') === 'all' ? 'all of it' : 'what was written';
  context.print(`verified: ${what} was read back and is point ${point}; ${formatDuration(tookMs)}`);
  if (failback !== null && failback.message !== '') context.print(failback.message);
}

async function runFailbackCommand(context: CommandContext, settings: Settings): Promise<number> {
  const client = await connect(context, settings);
  const server = settings.text('server');
  const { point, failback } = await firstPoint(context, client, settings);
  const chosen = await chooseTargets(context, settings, point);
  const left = point.volumes.filter(({ volume }) => !chosen.some((one) => one.volume === volume));
  if (left.length > 0) {
    const names = left.map(({ volume }) => volume).join(', ');
    context.note(`not written by this run: ${names}`);
  }
  if (!settings.flag('yes')) {
    const what = chosen.map(({ volume, path }) => `${path} with ${volume}`).join(', ');
    const undo =
      settings.optionalText('undo') === undefined ? ' Nothing is kept (see --undo).' : '';
    await context.confirm(`Overwrite ${what} of ${server}, where they differ?${undo}`);
  }
  const startMs = context.clock.monotonicMs();
  const time = new Date(context.clock.wallMs()).toISOString();
  const cause = failback === null ? `point ${point.id}` : `failback ${failback.job}`;
  const targets: OpenTarget[] = [];
  try {
    for (const target of chosen) targets.push(await openTarget(target, { server, cause, time }));
    const patient = patientClient(context, client);
    const writer = new HomeWriter(context, patient);
    const run = {
      context,
      client: patient,
      settings,
      writer,
      targets,
      job: failback?.job ?? null,
      verifiedChunks: 0,
    };
    const end = await passes(run, point);
    report(run, end, Math.round(context.clock.monotonicMs() - startMs));
  } finally {
    for (const target of targets) await target.close();
  }
  return 0;
}

export const runFailback: CommandSpec = {
  path: ['failback', 'run'],
  summary:
    'On the original machine, in a rescue system: write home the chunks that differ, and verify',
  options: [
    ...operatorOptions,
    serverOption,
    {
      name: 'map',
      type: 'list',
      value: 'VOLUME=DEV...',
      describe: 'Which volume goes to which disk (or file that stands for one)',
    },
    { name: 'volume', type: 'text', value: 'VOLUME', describe: 'One volume alone, with --to' },
    { name: 'to', type: 'text', value: 'DEV', describe: 'The disk for --volume' },
    {
      name: 'undo',
      type: 'text',
      value: 'FILE',
      describe:
        'Keep what is overwritten there (on another disk), for failback undo: where the original may hold ' +
        'writes that were never replicated. With several volumes: FILE.1, FILE.2',
    },
    {
      name: 'finish',
      type: 'flag',
      describe: 'After the first pass, do what failback finish does, and write the last difference',
    },
    acceptNewestOption,
    { name: 'once', type: 'flag', describe: 'One pass, verified; the failback goes on' },
    {
      name: 'verify',
      type: 'text',
      choices: ['all', 'written'],
      describe:
        'What is read back at the end: all of the disks, or what this run has written (of large disks all ' +
        'takes hours, in which nobody is served)',
      default: 'all',
    },
    {
      name: 'every',
      type: 'duration',
      value: 'TIME',
      describe: 'Between two passes, while the instance works on',
      default: '10s',
    },
    {
      name: 'point',
      type: 'text',
      value: 'ID',
      describe: 'Without a failback: make the disks equal to this point (or "latest"), once',
    },
    yesOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy failback run --server web1 --map root=/dev/sda --undo /mnt/usb/web1.undo',
      does: 'passes until failback finish is called elsewhere, then the last one',
    },
    {
      line: 'understudy failback run --server web1 --map root=/dev/sda data=/dev/sdb --finish',
      does: 'all of it in one go: asks to stop the services of the instance',
    },
    {
      line: 'understudy failback run --server web1 --map root=/dev/sda --point latest',
      does: 'no failback: a disk set back to a point, by what differs',
    },
  ],
  run: runFailbackCommand,
};
