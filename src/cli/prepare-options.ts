/** Options about boot preparation: of the commands that launch points, and of the service. */
import type { OptionSpec } from './option.ts';
import type { Settings } from './settings.ts';

export const prepareOptions: readonly OptionSpec[] = [
  {
    name: 'prepare',
    type: 'text',
    choices: ['auto', 'none'],
    describe:
      'auto (the default): drivers, fstab, boot loader and network are made to fit the new machine, ' +
      'in an overlay; none: the disks as they are',
  },
  {
    name: 'agent',
    type: 'text',
    choices: ['auto', 'on', 'off'],
    describe: 'The replicating agent in what is launched; auto: off in drills, on in failovers',
  },
];

/** Those that were given, by the names of the API. */
export const prepareSettings = (settings: Settings): Record<string, unknown> => ({
  prepare: settings.optionalText('prepare'),
  agent: settings.optionalText('agent'),
});

export const applianceOption: OptionSpec = {
  name: 'appliance-kernel',
  type: 'text',
  value: 'PATH',
  describe:
    'Kernel for boot preparation: a Debian package of one, or a folder with boot/ and lib/modules/ ' +
    '(without it, the newest under /boot)',
};
