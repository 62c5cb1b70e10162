/** Options about boot preparation: of the commands that launch points, and of the service. */
import type { OptionSpec } from './option.ts';

export const prepareOptions: readonly OptionSpec[] = [
  {
    name: 'prepare',
    field: 'prepare',
    type: 'text',
    choices: ['auto', 'none'],
    describe:
      'auto (the default): drivers, fstab, boot loader and network are made to fit the new machine, ' +
      'in an overlay; none: the disks as they are',
  },
  {
    name: 'agent',
    field: 'agent',
    type: 'text',
    choices: ['auto', 'on', 'off'],
    describe: 'The replicating agent in what is launched; auto: off in drills, on in failovers',
  },
];

export const applianceOption: OptionSpec = {
  name: 'appliance-kernel',
  type: 'text',
  value: 'PATH',
  describe:
    'Kernel for boot preparation: a Debian package of one, or a folder with boot/ and lib/modules/ ' +
    '(without it, the newest under /boot)',
};
