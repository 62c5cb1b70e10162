/** What an operator at a terminal does in the middle: ^C while a command waits, ^C and ^D where it asks. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { createContext } from '../../src/cli/context.ts';
import { waitingText } from '../../src/cli/job-progress.ts';
import { follow, isUp } from '../../src/cli/jobs.ts';
import { createRestClient } from '../../src/cli/rest-client.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend, fakeFailback, fakeJob } from './support/fake-backend.ts';

const JOB = 'j1';
let folder = '';
let server: Server;
let environment: Record<string, string> = {};
let job = fakeJob();
let log = '';
let uncleaned: ReturnType<typeof fakeJob>[] = [];
let consoleText: string | null = null;
let tails: (number | undefined)[] = [];
let onAsk: () => void = () => undefined;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-waits-'));
  writeFileSync(join(folder, 'token'), 'secret\n');
  log = '';
  uncleaned = [];
  [consoleText, tails] = [null, []];
  onAsk = () => undefined;
  const base = fakeBackend(Buffer.alloc(1));
  const failback = { ...fakeFailback(JOB), phase: 'replicating' as const };
  const handler = createApiHandler(
    {
      ...base,
      jobs: {
        ...{ ...base.jobs, find: () => job, log: async () => log },
        ...{ list: () => uncleaned, uncleaned: () => uncleaned },
        async evidence(id, name, mostBytes) {
          tails.push(mostBytes);
          if (consoleText !== null) return Buffer.from(consoleText);
          throw new UnderstudyError('ERR_JOB_NOT_FOUND', `job ${id} has no ${name}`);
        },
      },
      failbacks: { ...base.failbacks, list: () => [failback], find: () => failback },
    },
    'secret',
  );
  server = createServer((request, response) => {
    handler(request, response);
    onAsk();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  environment = {
    UNDERSTUDY_STAGING: `http://127.0.0.1:${port}`,
    UNDERSTUDY_TOKEN_FILE: join(folder, 'token'),
  };
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

describe('waiting for a job', () => {
  it.each([
    ['job', 'wait', JOB],
    ['drill', 'start', '--server', 'web1', '--wait'],
    ['drill', 'stop', JOB],
  ])('%s %s is no success when a signal ends it', async (...line) => {
    job = fakeJob({ id: JOB, phase: 'checking' });
    const stop = new AbortController();
    let asked = 0;
    onAsk = () => {
      asked += 1;
      if (asked === 3) stop.abort();
    };
    const { exitCode, out, err } = await runLine(line, environment, stop.signal);
    expect(exitCode, err).toBe(3);
    expect(out).toBe('');
    expect(err).toMatch(/^error: stopped by a signal.*\(ERR_CLI_INTERRUPTED\)\nhint: .+\n$/);
  });

  it('names the job that goes on', async () => {
    job = fakeJob({ id: JOB, phase: 'checking' });
    const stop = new AbortController();
    let asked = 0;
    onAsk = () => {
      asked += 1;
      if (asked === 3) stop.abort();
    };
    const { err } = await runLine(['job', 'wait', JOB], environment, stop.signal);
    expect(err).toContain(`the job goes on: understudy job wait ${JOB} `);
  });

  it('tells what its log warns of, once, and keeps the output JSON', async () => {
    job = fakeJob({ id: JOB });
    const warning = '2026-11-21T20:17:05.163Z prepare: WARNING the disks boot as they are\n';
    log = `2026-11-21T20:17:05.096Z begun\n${warning}${warning}`;
    const { exitCode, out, err } = await runLine(['job', 'wait', JOB, '--json'], environment);
    expect(exitCode).toBe(0);
    expect(JSON.parse(out).id).toBe(JOB);
    expect(err).toBe('warning: the disks boot as they are\n');
  });
});

describe('ending a job', () => {
  it.each([
    ['drill', ['drill', 'stop', JOB]],
    ['drill', ['job', 'cancel', JOB]],
    ['plan', ['plan', 'stop', JOB]],
    ['failover', ['failover', 'stop', JOB]],
  ] as const)(
    'of kind %s (%j) is no success where what it made is still there',
    async (kind, line) => {
      const left = { cleanError: 'busy', cleanTries: 1, cleanAgainAt: 'then' };
      job = fakeJob({ id: JOB, kind, state: 'done', outcome: 'done', ...left });
      const { exitCode, out, err } = await runLine([...line], environment);
      expect(exitCode).toBe(6);
      expect(out).toContain('not cleaned up: busy; try 2 at then');
      expect(err).toMatch(
        /cannot be cleaned up: busy; it is tried again by itself \(ERR_JOB_STATE\)/,
      );
      job = fakeJob({ id: JOB, kind, state: 'cleaned', outcome: 'done' });
      expect((await runLine([...line], environment)).exitCode).toBe(0);
    },
  );

  it('job list warns of what others have left', async () => {
    const { err } = await runLine(['job', 'list'], environment);
    expect(err).toBe('no jobs\n');
    uncleaned = [fakeJob({ id: 'j7', cleanError: 'busy' })];
    const warned = await runLine(['job', 'list'], environment);
    expect(warned.err).toContain('warning: what these have made is still there');
    expect(warned.err).toContain('j7');
  });
});

describe('ec2 status', () => {
  it('warns of what was left in AWS, where it may cost money, and of nothing else', async () => {
    const left = { cleanError: 'AccessDenied', cleanTries: 3 };
    uncleaned = [
      fakeJob({ id: 'j7', target: 'ec2', server: 'web1', ...left }),
      fakeJob({ id: 'j8', target: 'qemu', ...left }),
    ];
    const { exitCode, err } = await runLine(['ec2', 'status'], environment);
    expect(exitCode).toBe(0);
    expect(err).toBe(
      'warning: job j7 of web1 is not cleaned up, and may cost money: AccessDenied (3 times)\n',
    );
  });
});

describe('a wait for a machine', () => {
  /** A command that waits, on a terminal or not, until the job has been asked for so often. */
  async function wait(isTTY: boolean, states: (typeof job)[]): Promise<string> {
    job = states[0]!;
    const { context, shown } = terminal(isTTY);
    const client = await createRestClient({
      url: environment.UNDERSTUDY_STAGING!,
      tokenFile: environment.UNDERSTUDY_TOKEN_FILE!,
      ...{ caFile: undefined, signal: context.stop },
    });
    let asked = 0;
    onAsk = () => {
      asked += 1;
      job = states[Math.min(states.length - 1, Math.floor(asked / 3))]!;
    };
    await follow(context, client, job, isUp);
    return shown();
  }
  const checking = fakeJob({ ...{ id: JOB, state: 'running', phase: 'checking' }, progress: null });
  const up = fakeJob({ id: JOB, state: 'running', phase: 'up' });

  it('tells what it does, how long, and what its console said last', async () => {
    consoleText = 'one\r\n\x1b[32m[    2.345678] two\x1b[0m\x1b]0;title\x07\r\n\r\n';
    const shown = await wait(true, [checking, checking, up]);
    expect(shown).toContain('qemu: checking, 0 s: [    2.345678] two');
    expect(shown.split('\r').join('')).not.toMatch(/title|32m/);
    expect(shown.endsWith('\n')).toBe(true);
    expect(new Set(tails)).toEqual(new Set([4096]));
  });

  it('tells it beside what is copied, and where there is no console yet', async () => {
    const copying = { ...checking, progress: { done: 2 ** 20, total: 2 ** 21 } };
    const shown = await wait(true, [copying, copying, up]);
    expect(shown).toMatch(/qemu \[#+\.+\] +50% 1\.00 MiB of 2\.00 MiB.* checking, 0 s/);
  });

  it('is quiet where nobody looks, and asks for nothing that it does not show', async () => {
    consoleText = 'one\n';
    expect(await wait(false, [checking, up])).toBe('');
    expect(tails).toEqual([]);
  });

  it.each([
    ['checking', 0, '', 'checking, 0 s'],
    ['checking', 59_999, 'x', 'checking, 59 s: x'],
    ['starting the virtual machine', 61_700, '', 'starting the virtual machine, 1m 1s'],
  ])('%s after %i ms', (phase, elapsedMs, line, text) => {
    expect(waitingText(phase, elapsedMs, line)).toBe(text);
  });
});

describe('failover start --again', () => {
  it('asks where the source runs, as the first start does', async () => {
    job = fakeJob({ id: JOB, kind: 'failover', state: 'cleaned', outcome: 'done' });
    const line = ['failover', 'start', '--again', JOB];
    const refused = await runLine(line, environment);
    expect(refused.exitCode).toBe(6);
    expect(refused.err).toMatch(/Start another one anyway\?.*ERR_CLI_CONFIRMATION/);
    const begun = await runLine([...line, '--yes'], environment);
    expect(begun.exitCode, begun.err).toBe(0);
  });
});

function terminal(isTTY = true) {
  let shown = '';
  const stderr = Object.assign(
    new Writable({
      write(chunk, _encoding, done) {
        shown += String(chunk);
        done();
      },
    }),
    { isTTY, columns: 80 },
  );
  const stdin = Object.assign(new PassThrough(), { isTTY });
  const stdout = { write: () => true };
  const stop = new AbortController().signal;
  // No time passes: what is shown of it is the same however long a request takes.
  const clock = { ...systemClock, monotonicMs: () => 0 };
  const outside = { stdout, stderr, stdin, environment: {}, clock, stop };
  return { context: createContext(outside, false), stdin, shown: () => shown };
}

describe('a terminal', () => {
  it.each([
    ['^C', '\u0003'],
    ['^D', '\u0004'],
    ['n', 'n\r'],
  ])('%s at a question is a no', async (_key, bytes) => {
    const { context, stdin } = terminal();
    const asked = context.confirm('Go on?');
    stdin.write(bytes);
    await expect(asked).rejects.toMatchObject({ code: 'ERR_CLI_CONFIRMATION' });
  });

  it('y is a yes', async () => {
    const { context, stdin } = terminal();
    const asked = context.confirm('Go on?');
    stdin.write('y\r');
    await asked;
  });

  it('shows a note in the place of the bar, not behind it', () => {
    const { context, shown } = terminal();
    context.progress('failback').update(1, 2, 'replicating');
    context.note('a note');
    expect(shown().endsWith(' replicating\r\u001b[2Ka note\n')).toBe(true);
    context.note('another');
    expect(shown()).toMatch(/a note\nanother\n$/);
  });
});
