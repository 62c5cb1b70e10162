/**
 * The target `ec2` of launches. Light: the SDK and all that uses it is loaded when such a launch is checked,
 * run or cleaned up. All launches of a service share one quota of puts.
 */
import type { Clock } from '../../base/clock.ts';
import type { Launcher } from '../launcher.ts';
import { PutQuota } from './put-quota.ts';

export function createEc2Launcher(clock: Clock): Launcher {
  const quota = new PutQuota(clock);
  const job = () => import('./launch-job.ts');
  return {
    target: 'ec2',
    check: async (options, point, openImage) =>
      (await job()).checkLaunch(clock, options, point, openImage),
    run: async (launch) => (await job()).runLaunch(quota, launch),
    clean: async (made) => (await job()).cleanLaunch(clock, made),
  };
}
