/** Options by which `staging run` keeps EBS snapshots ready, and what they mean. */
import { UnderstudyError } from '../base/errors.ts';
import type { PrestageSettings } from '../staging/prestage/ports.ts';
import { readText } from './ec2-options.ts';
import type { OptionSpec } from './option.ts';
import type { Settings } from './settings.ts';

export const prestageOptions: readonly OptionSpec[] = [
  {
    name: 'ec2-prestage',
    type: 'duration',
    value: 'TIME',
    describe:
      'Keep EBS snapshots of every server ready, so often: a launch in EC2 uploads only what changed since',
  },
  {
    name: 'ec2-plan',
    type: 'text',
    value: 'FILE',
    describe: 'Region, encryption and tags of these snapshots, as in a launch plan',
  },
  { name: 'ec2-region', type: 'text', value: 'REGION', describe: 'Their region, without a plan' },
  {
    name: 'ec2-servers',
    type: 'list',
    value: 'NAME',
    describe: 'Only of these servers (again for another one); see also ec2 chain on',
  },
  {
    name: 'ec2-max-rate',
    type: 'rate',
    value: 'RATE',
    describe: 'Upload at most so fast for it, all servers together',
    default: '32MiB/s',
  },
];

const LEAST_MS = 10_000;

/** Null where none are wanted. ERR_USAGE, ERR_EC2_PLAN, ERR_DISK_*. */
export async function prestageSettings(settings: Settings): Promise<PrestageSettings | null> {
  const everyMs = settings.optionalNumber('ec2-prestage');
  const path = settings.optionalText('ec2-plan');
  const named = settings.optionalText('ec2-region');
  const servers = settings.list('ec2-servers');
  if (everyMs === undefined) {
    const given = [path && '--ec2-plan', named && '--ec2-region', servers[0] && '--ec2-servers'];
    const [idle] = given.filter((name) => name !== undefined);
    if (idle === undefined) return null;
    throw new UnderstudyError('ERR_USAGE', `${idle} is for --ec2-prestage`);
  }
  if (everyMs < LEAST_MS) throw new UnderstudyError('ERR_USAGE', '--ec2-prestage is at least 10s');
  if (path !== undefined && named !== undefined) {
    throw new UnderstudyError('ERR_USAGE', '--ec2-plan and --ec2-region: the plan has the region');
  }
  const bytesPerSecond = settings.number('ec2-max-rate');
  if (bytesPerSecond === 0) throw new UnderstudyError('ERR_USAGE', '--ec2-max-rate is more than 0');
  const { parseChainPlan } = await import('../recovery/ec2/launch-plan.ts');
  const text = path === undefined ? JSON.stringify({ region: named }) : await readText(path);
  const plan = parseChainPlan(text, path ?? '--ec2-region');
  return { everyMs, plan, servers, bytesPerSecond };
}
