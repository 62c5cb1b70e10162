/** Errors of commands that print JSON: one line of JSON, for a program; and hints for whoever typed a command. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { renderServer } from '../../src/cli/commands/server.ts';
import { describeFailure } from '../../src/cli/failure.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend } from './support/fake-backend.ts';

const service = {
  UNDERSTUDY_STAGING: 'http://127.0.0.1:1',
  UNDERSTUDY_TOKEN_FILE: '/etc/hostname',
};

interface Told {
  readonly error: Readonly<Record<string, unknown>>;
}

async function errorOf(line: string, environment: Record<string, string> = service) {
  const { exitCode, out, err } = await runLine(line.split(' '), environment);
  expect([out, err.split('\n').length]).toEqual(['', 2]);
  return { exitCode, ...(JSON.parse(err) as Told) };
}

describe('an error of a command with --json', () => {
  it('is one line of JSON with what the text says, and the same exit code', async () => {
    const text = await runLine(['point', 'list'], service);
    const { exitCode, error } = await errorOf('point list --json');
    expect(exitCode).toBe(text.exitCode);
    expect(Object.keys(error)).toEqual(['code', 'message', 'hint', 'retryable']);
    expect(error).toMatchObject({ code: 'ERR_CLI_UNREACHABLE', retryable: true });
    expect(text.err).toBe(`error: ${error.message} (${error.code})\nhint: ${error.hint}\n`);
  });

  it('is it also where the command line is wrong, or the flag is in the environment', async () => {
    const { exitCode, error } = await errorOf('point list --json --nonsense');
    expect([exitCode, error.code]).toEqual([2, 'ERR_USAGE']);
    expect(error.hint).toBe('see understudy point list --help');
    const set = await errorOf('point list', { ...service, UNDERSTUDY_JSON: 'true' });
    expect(set.error.code).toBe('ERR_CLI_UNREACHABLE');
  });

  it('has the stack with --verbose, on the same line', async () => {
    const { error } = await errorOf('point list --json --verbose');
    expect(error.stack).toContain('UnderstudyError');
  });
});

it('a request that the service refuses is explained by the help of the command', () => {
  const error = new UnderstudyError('ERR_API_REQUEST', 'which machine?');
  const failure = describeFailure(error, {
    verbose: false,
    help: 'understudy failback start --help',
  });
  expect(failure.lines[1]).toBe('hint: see understudy failback start --help');
});

it('a machine that is refused has a label, as all that a server shows', async () => {
  const [server] = await fakeBackend(new Uint8Array(4096)).servers();
  const lines = renderServer(server!, 0).split('\n');
  expect(lines.filter((line) => line.startsWith(':'))).toEqual([]);
  expect(lines.find((line) => line.includes('10.0.0.1:1'))).toMatch(/^refused: /);
});
