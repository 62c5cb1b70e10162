/** `understudy server keep`: the policy by which the points of one server are kept. */
import { UnderstudyError } from '../../base/errors.ts';
import { keepPresets, parseKeepRules } from '../../model/keep-rules.ts';
import type { ApiKeepPolicy, ApiRetentionPlan } from '../../staging/api-types.ts';
import type { CommandSpec } from '../command.ts';
import { connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { RestClient } from '../rest-client.ts';

const presets = Object.entries(keepPresets).map(([name, rules]) => `${name} (${rules})`);

function render({ server, keep, isDefault, isDamaged }: ApiKeepPolicy): string {
  if (isDamaged)
    return `${server}: its policy is damaged, and nothing of it is dropped; set it anew`;
  return `${server}: ${keep}${isDefault ? ' (the default of the service)' : ''}`;
}

/** Null: no point goes that would stay by the rules of now. */
async function questionOf(
  client: RestClient,
  server: string,
  keep: string,
): Promise<string | null> {
  const planned = (query: { keep?: string }) =>
    client.call<ApiRetentionPlan>('GET', '/v1/retention', { query: { server, ...query } });
  const going = new Set((await planned({})).drop);
  const { drop, points } = await planned({ keep });
  const more = drop.filter((id) => !going.has(id));
  if (more.length === 0) return null;
  const oldest = points.find(({ point }) => point === more[0])!.time;
  const what = `${more.length} of ${points.length} points of ${server} would go within a minute`;
  const see = `retention plan --server ${server} --keep ${keep}`;
  return `${what}, the oldest of ${oldest} (${see}). Keep by ${keep} from now on?`;
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
    yesOption,
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
    const server = settings.text('server');
    const path = `/v1/servers/${encodeURIComponent(server)}/keep`;
    const isChange = rules !== undefined || isDefault;
    if (isChange && !settings.flag('yes')) {
      const question = await questionOf(client, server, rules ?? 'default');
      if (question !== null) await context.confirm(question);
    }
    const policy = isChange
      ? await client.call<ApiKeepPolicy>('POST', path, { body: { keep: rules ?? null } })
      : await client.call<ApiKeepPolicy>('GET', path);
    context.print(settings.flag('json') ? JSON.stringify(policy, null, 2) : render(policy));
    return 0;
  },
};
