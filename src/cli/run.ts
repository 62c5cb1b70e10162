/**
 * One run of the command line, from words to an exit code: parse, settle the options, run the command,
 * turn a failure into lines. It touches the process only through its surroundings.
 */
import { readFile } from 'node:fs/promises';
import { UnderstudyError } from '../base/errors.ts';
import { commonOptions, type Given, parseCommandLine } from './adapter.ts';
import { allCommands, type CommandSpec } from './command.ts';
import { commandGroups } from './commands/index.ts';
import { createContext, type Surroundings } from './context.ts';
import { describeFailure } from './failure.ts';
import { helpFor } from './guidance.ts';
import { inTypedWords } from './launch-fields.ts';
import { environmentName, parseConfig, type Settings, settleOptions } from './settings.ts';

const knownOptions: ReadonlySet<string> = new Set(
  [
    ...commonOptions,
    ...commandGroups.flatMap((group) => allCommands(group).flatMap((c) => c.options)),
  ].map((option) => option.name),
);

async function readConfig(path: string | undefined): Promise<Record<string, unknown>> {
  if (path === undefined) return {};
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new UnderstudyError(
      'ERR_CLI_CONFIG',
      `cannot read the config file ${path}`,
      { path },
      cause,
    );
  }
  return parseConfig(text, path, knownOptions);
}

async function settle(
  command: CommandSpec,
  given: Given,
  surroundings: Surroundings,
): Promise<Settings> {
  const { environment, clock } = surroundings;
  const path = given.config ?? environment[environmentName('config')];
  const config = await readConfig(typeof path === 'string' && path !== '' ? path : undefined);
  return settleOptions(
    { ...command, options: [...command.options, ...commonOptions] },
    { given, environment, config, nowMs: clock.wallMs() },
  );
}

/** What a signal has cut short is no defect, and no service that is away. */
function afterSignal(error: unknown, stop: AbortSignal): unknown {
  const isOurs = error instanceof UnderstudyError && error.code !== 'ERR_CLI_UNREACHABLE';
  if (!stop.aborted || isOurs) return error;
  return new UnderstudyError('ERR_CLI_INTERRUPTED', 'stopped by a signal', {}, error);
}

/** Runs one command line; never throws. Resolves to the exit code. */
export async function runCommandLine(
  words: readonly string[],
  surroundings: Surroundings,
): Promise<number> {
  const { stdout, stderr } = surroundings;
  let verbose = words.includes('--verbose');
  let isJson = words.includes('--json');
  let options: CommandSpec['options'] = [];
  try {
    const invocation = await parseCommandLine(commandGroups, words, stdout.columns ?? 100);
    if (invocation.kind === 'text') {
      stdout.write(`${invocation.text}\n`);
      return 0;
    }
    const { command, given } = invocation;
    options = command.options;
    const settings = await settle(command, given, surroundings);
    verbose = settings.flag('verbose');
    isJson = options.some(({ name }) => name === 'json') && settings.flag('json');
    return (await command.run(createContext(surroundings, verbose), settings)) ?? 0;
  } catch (error) {
    const told = inTypedWords(options, afterSignal(error, surroundings.stop));
    const form = { verbose, isJson, help: helpFor(commandGroups, words) };
    const failure = describeFailure(told, form);
    stderr.write(`${failure.lines.join('\n')}\n`);
    return failure.exitCode;
  }
}
