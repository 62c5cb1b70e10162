/**
 * The only file that knows yargs: from commands as data to a parsed command line. It runs nothing and
 * prints nothing; what comes back is either a command with what was typed, or a text (help, version,
 * completion) to be shown. Wrong input is thrown as ERR_USAGE.
 */
import yargs, { type Argv } from 'yargs';
import { UnderstudyError } from '../base/errors.ts';
import { VERSION } from '../base/version.ts';
import type { CommandGroup, CommandSpec } from './command.ts';
import { missingWords, unknownWords } from './guidance.ts';
import type { OptionSpec } from './option.ts';
import { environmentName } from './settings.ts';

export type Invocation =
  | { readonly kind: 'command'; readonly command: CommandSpec; readonly given: Given }
  | { readonly kind: 'text'; readonly text: string };
export type Given = Readonly<Record<string, unknown>>;

/** Options that every command has. */
export const commonOptions: readonly OptionSpec[] = [
  {
    name: 'config',
    type: 'text',
    value: 'FILE',
    describe: 'JSON file with options by name; the command line and the environment go before it',
  },
  { name: 'verbose', type: 'flag', describe: 'More log lines, and the stack of an error' },
];

const footer = `\
Every option can be set by the environment (--token-file: ${environmentName('token-file')}) or in the file \
given by --config.
Exit codes: 0 done, 1 defect, 2 usage, 3 operation failed, 4 corruption found, 5 not found, 6 refused.`;

function describeOption(option: OptionSpec): string {
  const value = option.value === undefined ? '' : `${option.value}: `;
  return `${value}${option.describe}${option.required === true ? ' (required)' : ''}`;
}

function addOptions(parser: Argv, options: readonly OptionSpec[]): void {
  for (const option of options) {
    parser.option(option.name, {
      describe: describeOption(option),
      ...(option.type === 'flag'
        ? { boolean: true }
        : option.type === 'list'
          ? { array: true, string: true }
          : { string: true, requiresArg: true }),
      ...(option.default === undefined ? {} : { defaultDescription: String(option.default) }),
      ...(option.choices === undefined ? {} : { choices: [...option.choices] }),
    });
  }
}

type Choose = (command: CommandSpec, given: Given) => void;

function addCommand(parser: Argv, word: string, command: CommandSpec, choose: Choose): void {
  const names = (command.positionals ?? []).map(({ name, isOptional = false }) =>
    isOptional ? `[${name}]` : `<${name}>`,
  );
  parser.command({
    command: [word, ...names].join(' '),
    describe: command.summary,
    builder: (inner: Argv) => {
      for (const positional of command.positionals ?? []) {
        inner.positional(positional.name, { describe: positional.describe, type: 'string' });
      }
      addOptions(inner, command.options);
      for (const example of command.examples) inner.example(example.line, example.does);
      if (command.below !== undefined) inner.epilogue(command.below);
      return inner.usage(
        `understudy ${command.path.join(' ')} ${names.join(' ')}\n\n${command.summary}`,
      );
    },
    handler: (given: Given) => choose(command, given),
  });
}

function addGroup(parser: Argv, group: CommandGroup, choose: Choose, above = ''): void {
  const words = `${above}${group.word}`;
  const single = group.commands[0];
  if (single !== undefined && single.path.length === 1) {
    addCommand(parser, group.word, single, choose);
    return;
  }
  parser.command({
    command: group.word,
    describe: group.summary,
    builder: (inner: Argv) => {
      for (const command of group.commands) {
        addCommand(inner, command.path.at(-1)!, command, choose);
        const example = command.examples[0];
        if (example !== undefined) inner.example(example.line, example.does);
      }
      for (const within of group.groups ?? []) addGroup(inner, within, choose, `${words} `);
      return inner.usage(`understudy ${words} COMMAND\n\n${group.summary}`).demandCommand(1);
    },
    handler: () => undefined,
  });
}

type Telling = [RegExp, (match: RegExpExecArray) => string];

/** yargs speaks of arguments and counts them; people want to know which word is wrong, and what is right. */
function plainly(message: string, groups: readonly CommandGroup[], words: readonly string[]) {
  const tellings: readonly Telling[] = [
    [/^Not enough non-option arguments/, () => missingWords(groups, words)],
    [/^Unknown arguments?: (.+)/s, ([, names]) => unknown(names!.split(', '))],
    [/^Not enough arguments following: (.+)/, ([, name]) => `--${name} needs a value`],
    [
      /^Invalid values:\s+Argument: (\S+), Given: (.+?), Choices: (.+)/s,
      ([, name, given, choices]) =>
        `--${name}: ${given} is none of ${choices!.replaceAll('"', '')}`,
    ],
  ];
  const unknown = (names: readonly string[]) =>
    unknownWords(groups, words, names, [
      ...commonOptions.map(({ name }) => name),
      'help',
      'version',
    ]);
  for (const [pattern, tell] of tellings) {
    const match = pattern.exec(message);
    if (match !== null) return tell(match);
  }
  return message;
}

/** Parses what was typed after `understudy`. */
export async function parseCommandLine(
  groups: readonly CommandGroup[],
  words: readonly string[],
  columns: number,
): Promise<Invocation> {
  let chosen: Invocation | undefined;
  const parser = yargs()
    .scriptName('understudy')
    .locale('en')
    .usage('understudy COMMAND\n\nKeeps a stand-in ready for a server: block-level replication.')
    .parserConfiguration({
      'duplicate-arguments-array': true,
      'camel-case-expansion': false,
      // Or --no-estimate would be an option "estimate", which there is not.
      'boolean-negation': false,
    })
    .strict()
    .exitProcess(false)
    .wrap(Math.min(110, Math.max(60, columns)))
    .version(VERSION)
    .completion('completion', 'Print a completion script for bash or zsh')
    .epilogue(footer)
    .demandCommand(1)
    .fail((message, error) => {
      // Some of its complaints come as errors of its own.
      if (error !== undefined && error !== null && error.name !== 'YError') throw error;
      const said = message ?? error?.message ?? '';
      throw new UnderstudyError('ERR_USAGE', plainly(said, groups, words));
    });
  addOptions(parser, commonOptions);
  for (const group of groups) {
    addGroup(parser, group, (command, given) => {
      chosen = { kind: 'command', command, given };
    });
  }
  let text = '';
  await parser.parseAsync([...words], {}, (_error, _given, output) => {
    text = output;
  });
  return chosen ?? { kind: 'text', text };
}
