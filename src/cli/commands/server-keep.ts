/** `understudy server keep`: the policy by which the points of one server are kept. */
import { UnderstudyError } from '../../base/errors.ts';
import { keepPresets, parseKeepRules } from '../../model/keep-rules.ts';
import type { ApiKeepPolicy } from '../../staging/api-types.ts';
import type { CommandSpec } from '../command.ts';
import { connect, jsonOption, operatorOptions } from '../operator.ts';

const presets = Object.entries(keepPresets).map(([name, rules]) => `${name} (${rules})`);

function render({ server, keep, isDefault, isDamaged }: ApiKeepPolicy): string {
  if (isDamaged)
    return `${server}: its policy is damaged, and nothing of it is dropped; set it anew`;
  return `${server}: ${keep}${isDefault ? ' (the default of the service)' : ''}`;
}

export const keep: CommandSpec = {
  path: ['server', 'keep'],
  summary: 'Show or set how long points of a server are kept; it lies in the repository',
  positionals: [{ name: 'server', describe: 'Name of the source server' }],
  options: [
    ...operatorOptions,
    {
      name: 'keep',
      type: 'text',
      value: 'POLICY',
      describe: `INTERVAL=AGE, ... or a preset: ${presets.join(', ')}`,
    },
    { name: 'default', type: 'flag', describe: 'Back to the default of the service' },
    jsonOption,
  ],
  examples: [
    { line: 'understudy server keep web1', does: 'show the policy' },
    { line: 'understudy server keep web1 --keep all=1h,1h=7d', does: 'a policy of its own' },
    { line: 'understudy server keep web1 --keep drs,1d=365d', does: 'a preset and a rule more' },
    { line: 'understudy server keep web1 --default', does: 'that of the service again' },
  ],
  async run(context, settings) {
    const rules = settings.optionalText('keep');
    const isDefault = settings.flag('default');
    if (rules !== undefined && isDefault) {
      throw new UnderstudyError('ERR_USAGE', '--keep and --default: one of the two');
    }
    if (rules !== undefined) parseKeepRules(rules);
    const client = await connect(context, settings);
    const path = `/v1/servers/${encodeURIComponent(settings.text('server'))}/keep`;
    const policy =
      rules === undefined && !isDefault
        ? await client.call<ApiKeepPolicy>('GET', path)
        : await client.call<ApiKeepPolicy>('POST', path, { body: { keep: rules ?? null } });
    context.print(settings.flag('json') ? JSON.stringify(policy, null, 2) : render(policy));
    return 0;
  },
};
