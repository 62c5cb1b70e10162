/**
 * The target `ec2` of launches. Light: the SDK and all that uses it is loaded when such a launch is checked,
 * run or cleaned up. All launches of a service share one quota of puts, with what it prepares.
 */
import type { Clock } from '../../base/clock.ts';
import type { Launcher } from '../launcher.ts';
import type { Ec2Ports } from './launch-job.ts';
import { PutQuota } from './put-quota.ts';

export function createEc2Launcher(clock: Clock, ports: Ec2Ports = {}): Launcher {
  const { quota = new PutQuota(clock) } = ports;
  const job = () => import('./launch-job.ts');
  return {
    target: 'ec2',
    readOptions: async (options) => (await job()).readOptions(options),
    check: async (options, point, openImage) =>
      (await job()).checkLaunch({ ...ports, clock }, options, point, openImage),
    run: async (launch) => (await job()).runLaunch({ ...ports, quota }, launch),
    clean: async (made) => (await job()).cleanLaunch(clock, made),
  };
}
