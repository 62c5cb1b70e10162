/** The jobs of the real service: its launchers, and the door by which they read images. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { createEc2Launcher } from '../recovery/ec2/ec2-launcher.ts';
import type { Ec2Ports } from '../recovery/ec2/launch-job.ts';
import { createExportLauncher } from '../recovery/export-launcher.ts';
import { Preparation } from '../recovery/prepare/preparation.ts';
import { prepareImages, withPreparation } from '../recovery/prepare/prepared-images.ts';
import { createQemuLauncher } from '../recovery/qemu/launcher.ts';
import type { Runner } from '../recovery/runner.ts';
import type { Store } from '../store/types.ts';
import { ImageDoor, runFolderOf } from './jobs/image-door.ts';
import { Jobs } from './jobs/jobs.ts';
import { type OpenPlans, openPlans } from './plans/open-plans.ts';
import { stepsOf } from './plans/plan-steps.ts';

export interface OpenJobs {
  readonly jobs: Jobs;
  /** Is to be given who answers. */
  readonly door: ImageDoor;
  readonly plans: OpenPlans;
}

export interface OpenJobsOptions {
  /** The data directory. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly token: string;
  /** Where the scripts of plans lie; null: none are run. */
  readonly scriptsDir: string | null;
  readonly ec2?: Ec2Ports;
  /** For boot preparation: a Debian package of a kernel, or a folder; else this machine's own. */
  readonly applianceKernel?: string | undefined;
  /** Of the other jobs that are no launches. */
  readonly runners: (jobs: Jobs) => readonly Runner[];
}

export async function openJobs(options: OpenJobsOptions): Promise<OpenJobs> {
  const { folder, clock, log, store, token, scriptsDir, ec2 = {} } = options;
  const preparation = new Preparation({ clock, folder, kernel: options.applianceKernel });
  let plans: OpenPlans | null = null;
  const door = new ImageDoor({ runFolder: runFolderOf(folder), clock, log, token });
  const jobs = await Jobs.open({
    ...{ disk: nodeDisk, dataDir: folder, clock, log, store, door, stepsOf },
    launchers: [
      createQemuLauncher(clock, { preparation, probeKeys: join(folder, 'probe-keys') }),
      createExportLauncher(preparation),
      withPreparation(
        createEc2Launcher(clock, { ...ec2, prepare: prepareImages(preparation) }),
        preparation,
        'auto',
      ),
    ],
    runners: (opened) => {
      plans = openPlans(opened, { disk: nodeDisk, folder, clock, log, store, scriptsDir });
      return [plans.runner, ...options.runners(opened)];
    },
    newId: () => randomBytes(4).toString('hex'),
  });
  return { jobs, door, plans: plans! };
}
