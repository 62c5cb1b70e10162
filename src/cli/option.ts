/** Options and positional words of a command, as data. */

export type OptionType = 'text' | 'list' | 'flag' | 'count' | 'size' | 'rate' | 'duration' | 'time';

export interface OptionSpec {
  readonly name: string;
  readonly type: OptionType;
  readonly describe: string;
  /** What stands for the value in the help: "DIR", "URL". */
  readonly value?: string;
  readonly required?: boolean;
  readonly default?: string | number | boolean;
  readonly choices?: readonly string[];
  /** The option of a launch that it is, by the name of the API. */
  readonly field?: string;
}

export interface PositionalSpec {
  readonly name: string;
  readonly describe: string;
  readonly isOptional?: boolean;
}
