/** What is typed: wrong words are told plainly, and what the help and the documents show can be typed. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { commonOptions, parseCommandLine } from '../../src/cli/adapter.ts';
import { allCommands, type CommandSpec } from '../../src/cli/command.ts';
import { commandGroups } from '../../src/cli/commands/index.ts';
import { nearest } from '../../src/cli/guidance.ts';
import { settleOptions } from '../../src/cli/settings.ts';
import { runLine } from './support/command-line.ts';

const commands = commandGroups.flatMap(allCommands);

describe('wrong words', () => {
  it.each([
    ['', 'a command is missing', 'understudy'],
    ['srever list', 'understudy has no command "srever"; did you mean server?', 'understudy'],
    ['nonsense', 'understudy has no command "nonsense"', 'understudy'],
    [
      'image exprot --out x',
      'understudy image has no command "exprot" (export); did you mean export?',
      'understudy image',
    ],
    [
      'repo key',
      'understudy repo key needs a command: create, list, rotate, add',
      'understudy repo key',
    ],
    [
      'repo key mend',
      'understudy repo key has no command "mend" (create, list, rotate, add)',
      'understudy repo key',
    ],
    [
      'point list --jsno',
      'understudy point list has no option --jsno; did you mean --json?',
      'understudy point list',
    ],
    [
      'point list --purple=1',
      'understudy point list has no option --purple',
      'understudy point list',
    ],
    ['point list web1', 'understudy point list does not take "web1"', 'understudy point list'],
    ['image export --out', '--out needs a value', 'understudy image export'],
    [
      'image export --format tar',
      '--format: "tar" is none of raw, qcow2, vmdk, vhd, gcp',
      'understudy image export',
    ],
    ['drill stop', 'understudy drill stop needs <job> (Id of the job)', 'understudy drill stop'],
    ['server list', '--staging is missing (or UNDERSTUDY_STAGING)', 'understudy server list'],
  ])('"%s" says what, and where to look', async (line, message, help) => {
    const { exitCode, out, err } = await runLine(line === '' ? [] : line.split(' '), {});
    expect(err).toBe(`error: ${message} (ERR_USAGE)\nhint: see ${help} --help\n`);
    expect([exitCode, out]).toEqual([2, '']);
  });

  it.each([
    ['lst', ['list', 'show'], 'list'],
    ['ls', ['list', 'show'], undefined],
    ['exprot', ['export'], 'export'],
    ['show', [], undefined],
  ])('nearest of "%s" in %j', (word, candidates, meant) => {
    expect(nearest(word, candidates)).toBe(meant);
  });
});

/** The words of the first `understudy` of a shell line, up to what the shell takes for itself. */
function wordsOf(line: string): string[] | undefined {
  const [, rest] = /(?:^|[\s(])(?:scripts\/)?understudy((?:\s.*)?)$/s.exec(line) ?? [];
  if (rest === undefined) return undefined;
  const words: string[] = [];
  for (const [whole, quoted] of rest.matchAll(/'([^']*)'|"[^"]*"|[^\s'"]+/g)) {
    if (/^[|<>&)#(]/.test(whole)) break;
    words.push(quoted ?? whole.replace(/^"|"$|\)$/g, ''));
  }
  return words;
}

async function parsed(words: readonly string[]): Promise<{ command: CommandSpec; given: object }> {
  const invocation = await parseCommandLine(commandGroups, words, 100);
  if (invocation.kind === 'text') throw new Error(`no command: ${words.join(' ')}`);
  return invocation;
}

describe('examples of the help can be typed:', () => {
  const examples = commands.flatMap((command) =>
    command.examples.map(({ line }) => [line, command] as const),
  );

  it.each(examples)('%s', async (line, command) => {
    const invocation = await parsed(wordsOf(line)!);
    expect(invocation.command).toBe(command);
    const given = invocation.given as Record<string, unknown>;
    // What an operator has set once, and what a config file of the example holds.
    const isFromFile = given.config !== undefined;
    const options = [...command.options, ...commonOptions].map((option) =>
      isFromFile ? { ...option, required: false } : option,
    );
    const environment = { UNDERSTUDY_STAGING: 'https://x', UNDERSTUDY_TOKEN_FILE: 'x' };
    const positionals = command.positionals ?? [];
    settleOptions({ options, positionals }, { given, environment, config: {}, nowMs: 0 });
  });
});

describe('lines of the documents can be typed:', () => {
  const documents = [
    'README.md',
    'install/README.md',
    'install/aws/README.md',
    'src/staging/plans/PLANS.md',
  ];
  const lines = documents.flatMap((path) => {
    const text = readFileSync(path, 'utf8').replace(/\\\n\s*/g, '');
    const blocks = text.split('\n').filter((line) => line.startsWith('    '));
    const inline = [...text.replace(/^ {4}.*$/gm, '').matchAll(/`(understudy [^`]+)`/g)];
    return [...blocks, ...inline.map(([, line]) => line!.replaceAll('\n', ' '))]
      .map((line) => line.trim().replace(/ {2,}[a-z].*$/, ''))
      .filter((line) => wordsOf(line) !== undefined && !/COMMAND|--help/.test(line))
      .map((line) => [path, line] as const);
  });

  it('there are some', () => expect(lines.length).toBeGreaterThan(30));

  it.each(lines)('%s: %s', async (_path, line) => {
    const words = wordsOf(line)!;
    // A family of commands may be named as a whole.
    if (words.length === 0 || words.some((word) => word.includes('|'))) return;
    await parsed(words);
  });
});
