/**
 * Commands as data. A command is its words, its options, examples and a function; what parses the
 * command line (`adapter.ts`), the environment and the config file (`settings.ts`) knows no command, and
 * no command knows a parser. Nothing here prints or exits: that is the context's.
 */
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { OptionSpec, PositionalSpec } from './option.ts';
import type { Progress, ProgressUnit } from './progress.ts';
import type { Settings } from './settings.ts';

export interface CommandExample {
  readonly line: string;
  readonly does: string;
}

export interface CommandSpec {
  /** Words after `understudy`: ['point', 'list']. */
  readonly path: readonly [string, ...string[]];
  readonly summary: string;
  readonly positionals?: readonly PositionalSpec[];
  readonly options: readonly OptionSpec[];
  readonly examples: readonly CommandExample[];
  /** A text that is shown below the help as it stands, to be copied: lines of at most 60 columns. */
  readonly below?: string;
  /** Resolves to the exit code; nothing means 0. Failures are thrown. */
  readonly run: (context: CommandContext, settings: Settings) => Promise<number | undefined>;
}

/** A family of commands: `understudy point ...`. */
export interface CommandGroup {
  readonly word: string;
  readonly summary: string;
  readonly commands: readonly CommandSpec[];
  /** Families within: `understudy repo key ...`. */
  readonly groups?: readonly CommandGroup[];
}

/** With those of the families within. */
export const allCommands = ({ commands, groups = [] }: CommandGroup): readonly CommandSpec[] => [
  ...commands,
  ...groups.flatMap(allCommands),
];

export interface CommandContext {
  /** A line of the command's result, on standard output. */
  print(text: string): void;
  /** Columns of the terminal on which that is shown; null where it is none. */
  readonly columns: number | null;
  /** A line for the human beside it, on standard error. */
  note(text: string): void;
  /** Replaces what the last call drew (a terminal only; elsewhere the text is printed once more). */
  redraw(text: string): void;
  progress(label: string, unit?: ProgressUnit): Progress;
  /** Asks yes or no; refuses with ERR_CLI_CONFIRMATION where there is nobody to ask. */
  confirm(question: string): Promise<void>;
  /** Of a service: it does its work now; told to whoever supervises it. */
  ready(): void;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted by SIGTERM or SIGINT. */
  readonly stop: AbortSignal;
}
