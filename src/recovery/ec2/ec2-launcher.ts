/**
 * The target `ec2` of launches. Light: the SDK and all that uses it is loaded when such a launch is checked,
 * run or cleaned up. All launches of a service share one quota of puts, with what it prepares.
 */
import type { Clock } from '../../base/clock.ts';
import type { ImageOverlay } from '../image-overlay.ts';
import type { Launch, Launcher } from '../launcher.ts';
import type { ChainLender } from './borrowed-chain.ts';
import type { SourceMachine } from './launch-choices.ts';
import { PutQuota } from './put-quota.ts';

/** What the service has for launches; each may be left out. */
export interface Ec2Ports {
  readonly quota?: PutQuota;
  readonly chains?: ChainLender;
  /** What the agent of a server told of its machine. */
  readonly machine?: (server: string) => SourceMachine | null;
  /** By volume: what is laid over the point's images. Called before anything is uploaded. */
  readonly prepare?: (launch: Launch) => Promise<ReadonlyMap<string, ImageOverlay>>;
}

export function createEc2Launcher(clock: Clock, ports: Ec2Ports = {}): Launcher {
  const { quota = new PutQuota(clock) } = ports;
  const job = () => import('./launch-job.ts');
  return {
    target: 'ec2',
    check: async (options, point, openImage) =>
      (await job()).checkLaunch({ ...ports, clock }, options, point, openImage),
    run: async (launch) => (await job()).runLaunch({ ...ports, quota }, launch),
    clean: async (made) => (await job()).cleanLaunch(clock, made),
  };
}
