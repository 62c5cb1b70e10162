/** The command line as a whole, in this process: help, usage errors, exit codes, and what goes where. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { errorCatalogue, UnderstudyError } from '../../src/base/errors.ts';
import { diskError } from '../../src/base/node-disk.ts';
import { allCommands } from '../../src/cli/command.ts';
import { commandGroups } from '../../src/cli/commands/index.ts';
import { describeFailure } from '../../src/cli/failure.ts';
import { runLine } from './support/command-line.ts';

const run = (line: string[], environment: Record<string, string> = {}) =>
  runLine(line, environment);

const commands = commandGroups.flatMap(allCommands);

describe('help', () => {
  it.each(commands.map((command) => [command.path.join(' '), command] as const))(
    '%s --help has a summary, its options and an example',
    async (line, command) => {
      const { exitCode, out, err } = await run([...line.split(' '), '--help']);
      expect(exitCode).toBe(0);
      expect(err).toBe('');
      expect(out).toContain(command.summary);
      expect(out).toContain('Examples:');
      for (const option of command.options) expect(out).toContain(`--${option.name}`);
      for (const example of command.examples) expect(example.line).toMatch(/^understudy /);
    },
  );

  it('names all groups', async () => {
    const { out } = await run(['--help']);
    for (const group of commandGroups) expect(out).toContain(`understudy ${group.word}`);
  });

  it('completes commands', async () => {
    const { out } = await run(['--get-yargs-completions', 'understudy', 'point', '']);
    expect(out).toContain('list');
    expect(out).toContain('create');
    expect((await run(['completion'])).out).toContain('complete -o');
  });
});

describe('usage errors', () => {
  it.each([
    [[]],
    [['nonsense']],
    [['point']],
    [['point', 'list', '--nonsense']],
    [['point', 'list', 'nonsense']],
    [['image', 'export', '--format', 'tar']],
    [['point', 'list', '--staging', 'ftp://x', '--token-file', '/etc/hostname']],
    [['point', 'list', '--staging', 'http://192.0.2.1:1', '--token-file', '/etc/hostname']],
    [['point', 'list', '--config', '/nonexistent/config.json']],
  ])('%j is one error line with a code, one hint, exit 2', async (line) => {
    const { exitCode, out, err } = await run(line);
    expect(exitCode).toBe(2);
    expect(out).toBe('');
    expect(err).toMatch(/^error: .+ \(ERR_[A-Z_]+\)\nhint: .+\n$/);
  });

  it.each([
    [['drill', 'stop'], 'understudy drill stop needs <job> (Id of the job)'],
    [['plan', 'apply'], 'understudy plan apply needs <file> (The plan)'],
  ])('%j names what is missing', async (line, words) => {
    expect((await run(line)).err).toContain(`error: ${words} (ERR_USAGE)`);
  });

  it('a stack is shown with --verbose only', async () => {
    expect((await run(['point', 'list'])).err).not.toContain('    at ');
    expect((await run(['point', 'list', '--verbose'])).err).toContain('    at ');
  });
});

describe('describeFailure', () => {
  it('puts context and cause on the line, without repeating them', () => {
    const cause = new Error('no such device\nreally');
    const error = new UnderstudyError(
      'ERR_BUG',
      'reading /dev/x',
      { path: '/dev/x', offset: 5 },
      cause,
    );
    expect(describeFailure(error, { verbose: false }).lines[0]).toBe(
      'error: reading /dev/x: no such device really [offset 5] (ERR_BUG)',
    );
  });

  it('of a system call says each thing once', () => {
    const message = "EEXIST: file already exists, open '/etc/key'";
    const call = { code: 'EEXIST', syscall: 'open', path: '/etc/key' };
    const error = diskError(Object.assign(new Error(message), call), '/etc/key');
    expect(describeFailure(error, { verbose: false }).lines[0]).toBe(
      'error: open of /etc/key: EEXIST: file already exists (ERR_DISK_EXISTS)',
    );
  });

  it('calls what is no error of ours a defect', () => {
    expect(describeFailure(new TypeError('x is undefined'), { verbose: false })).toMatchObject({
      exitCode: 1,
    });
    expect(describeFailure('text', { verbose: false }).lines[0]).toContain('ERR_BUG');
  });

  it('gives every code of the catalogue its exit code and a hint', () => {
    for (const [code, spec] of Object.entries(errorCatalogue)) {
      const failure = describeFailure(new UnderstudyError(code as 'ERR_BUG', 'm'), {
        verbose: false,
      });
      expect(failure).toEqual({
        exitCode: spec.exitCode,
        lines: [`error: m (${code})`, `hint: ${spec.hint}`],
      });
      expect(spec.exitCode).toBeGreaterThan(0);
    }
  });
});

describe('against a service', () => {
  let folder: string;
  let server: Server;
  let environment: Record<string, string>;
  let answer: (path: string) => { status: number; body: string };
  const asked: { path: string; authorization: string | undefined }[] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'understudy-cli-'));
    writeFileSync(join(folder, 'token'), 'secret\n');
    server = createServer((request, response) => {
      asked.push({ path: request.url ?? '', authorization: request.headers.authorization });
      const { status, body } = answer(request.url ?? '');
      response.writeHead(status).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    environment = {
      UNDERSTUDY_STAGING: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
      UNDERSTUDY_TOKEN_FILE: join(folder, 'token'),
    };
  });
  beforeEach(() => {
    asked.length = 0;
  });
  afterEach(() => {
    answer = () => ({ status: 500, body: '' });
  });
  afterAll(async () => {
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true });
  });

  const point = (id: string, server = 'web1', missingVolumes: string[] = []) => ({
    id,
    server,
    time: '2026-11-20T10:00:00.000Z',
    cut: { method: 'validated', passes: 2, durationMs: 9 },
    volumes: [
      {
        volume: '/dev/a',
        sizeBytes: 4096,
        sectorBytes: 512,
        generation: 'g',
        epoch: 3,
        chainRoot: 'r',
      },
    ],
    missingVolumes,
    state: 'sealed',
  });
  const points = (...list: ReturnType<typeof point>[]) => ({
    status: 200,
    body: JSON.stringify({ points: list, next: null }),
  });

  it('point list --json is an array, asked for with the token and the filters', async () => {
    answer = () => points(point('p1'), point('p2'));
    const line = ['point', 'list', '--json', '--server', 'web1', '--limit', '5'];
    const { exitCode, out } = await run([...line, '--from', '2026-11-20T09:00:00Z'], environment);
    expect(exitCode).toBe(0);
    expect(JSON.parse(out).map((entry: { id: string }) => entry.id)).toEqual(['p1', 'p2']);
    expect(asked[0]!.authorization).toBe('Bearer secret');
    const query = new URL(asked[0]!.path, 'http://x').searchParams;
    expect(Object.fromEntries(query)).toEqual({
      server: 'web1',
      limit: '6', // one more than is shown: are there more?
      from: '2026-11-20T09:00:00.000Z',
    });
  });

  it('point list goes on over pages until the limit', async () => {
    answer = (path) => {
      const first = !path.includes('after=');
      const next = first ? 'p1' : null;
      return { status: 200, body: JSON.stringify({ points: [point(first ? 'p1' : 'p2')], next }) };
    };
    const { out } = await run(['point', 'list', '--json'], environment);
    expect(JSON.parse(out)).toHaveLength(2);
    expect(asked[1]!.path).toContain('after=p1');
  });

  it('point list says when it leaves some out', async () => {
    answer = () => points(point('p3'), point('p2'), point('p1'));
    const some = await run(['point', 'list', '--json', '--limit', '2'], environment);
    expect(JSON.parse(some.out).map(({ id }: { id: string }) => id)).toEqual(['p3', 'p2']);
    expect(some.err).toContain('there are more, older than these 2');
    expect((await run(['point', 'list', '--limit', '3'], environment)).err).toBe('');
  });

  it('server list says when the repository takes nothing', async () => {
    const sealingWaits = { code: 'ERR_OBJECTS_UNAVAILABLE', message: 'no answer', sinceMs: 0 };
    answer = (path) => {
      const body = path.startsWith('/v1/servers') ? { servers: [] } : { sealingWaits };
      return { status: 200, body: JSON.stringify(body) };
    };
    const { out, err } = await run(['server', 'list', '--json'], environment);
    expect(JSON.parse(out)).toEqual([]);
    expect(err).toContain('takes nothing since 1970-01-01T00:00:00.000Z: no answer');
  });

  it('latest is the newest whole point', async () => {
    answer = () => points(point('p3', 'web1', ['/dev/b']), point('p2'), point('p1'));
    const { out } = await run(['point', 'show', 'latest', '--json'], environment);
    expect(JSON.parse(out).id).toBe('p2');
  });

  it('--at asks the service for the point of a time', async () => {
    answer = () => points(point('p2'));
    const line = ['point', 'show', '--at', '2026-11-20T10:31:07+01:00', '--json'];
    const { out } = await run([...line, '--server', 'web1', '--partial'], environment);
    expect(JSON.parse(out).id).toBe('p2');
    const query = new URL(asked[0]!.path, 'http://x').searchParams;
    expect(Object.fromEntries(query)).toEqual({
      at: '2026-11-20T09:31:07.000Z',
      server: 'web1',
      partial: 'true',
    });
  });

  it.each([
    [['point', 'show'], 'one of the two'],
    [['point', 'show', 'p1', '--at', '10m'], 'one of the two'],
    [['point', 'show', '--at', '2026-11-20T10:31:07'], 'has no zone'],
    [['point', 'show', '--at', '2026-11-20 10:31:07'], 'not a time'],
    [['point', 'show', '--at', '2026-11-31T00:00:00Z'], 'not a time'],
    [['point', 'show', '--at', '99999999999h'], 'before any calendar'],
  ])('%j is refused', async (line, reason) => {
    const { exitCode, err } = await run(line, environment);
    expect(exitCode).toBe(2);
    expect(err).toContain(reason);
  });

  it('--at of several servers asks which', async () => {
    answer = () => points(point('p2'), point('p1', 'web2'));
    const { exitCode, err } = await run(['point', 'show', '--at', '1h'], environment);
    expect(exitCode).toBe(2);
    expect(err).toContain('web1, web2');
  });

  it('latest of several servers asks which', async () => {
    answer = () => points(point('p2'), point('p1', 'web2'));
    const { exitCode, err } = await run(['point', 'show', 'latest'], environment);
    expect(exitCode).toBe(2);
    expect(err).toContain('needs --server');
  });

  it('hands on the code and exit code of the service', async () => {
    const error = { code: 'ERR_POINT_NOT_FOUND', message: 'no point px', hint: '' };
    answer = () => ({ status: 404, body: JSON.stringify({ error }) });
    const { exitCode, err } = await run(['point', 'show', 'px'], environment);
    expect(exitCode).toBe(5);
    expect(err).toContain('error: no point px (ERR_POINT_NOT_FOUND)\n');
  });

  it.each(['<html>', '{}', '{"error":{"code":"ERR_FROM_THE_FUTURE","message":"m"}}'])(
    'a stranger that answers %s is told from a service of ours',
    async (body) => {
      answer = () => ({ status: 500, body });
      const { exitCode, err } = await run(['point', 'list'], environment);
      expect(exitCode).toBe(3);
      expect(err).toContain('(ERR_CLI_RESPONSE)');
    },
  );

  it('a service that is not there is unreachable, a missing token file is a usage error', async () => {
    const nowhere = { ...environment, UNDERSTUDY_STAGING: 'http://127.0.0.1:9' };
    expect((await run(['server', 'list'], nowhere)).err).toContain('(ERR_CLI_UNREACHABLE)');
    const tokenless = { ...environment, UNDERSTUDY_TOKEN_FILE: join(folder, 'none') };
    const { exitCode, err } = await run(['server', 'list'], tokenless);
    expect(exitCode).toBe(2);
    expect(err).toContain('(ERR_CLI_TOKEN)');
  });
});
