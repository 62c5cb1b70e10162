/** What can be chosen about boot preparation, in the words of the API; the same for all targets. */
import type { OptionRule } from './launch-options.ts';

export const prepareRules: Readonly<Record<string, OptionRule>> = {
  prepare: { kind: 'choice', of: ['auto', 'none'], standard: 'auto' },
  /** The replicating agent in what is launched; auto: off in drills, on in failovers. */
  agent: { kind: 'choice', of: ['auto', 'on', 'off'], standard: 'auto' },
};
