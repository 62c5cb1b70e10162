/** Who does the work of a job: of a launch the launcher of its target, else the runner of its kind. */
import { UnderstudyError } from '../../base/errors.ts';
import type { Launcher } from '../../recovery/launcher.ts';
import type { LaunchEnd, Runner, WorkKind } from '../../recovery/runner.ts';
import type { Job } from './job-state.ts';
import { type Live, launchOf, type WorkPorts, workOf } from './live-job.ts';

const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_OPTIONS', message);

export interface Worker {
  run(live: Live): Promise<LaunchEnd>;
  clean: Runner['clean'];
}

export class Workers {
  private readonly launchers: readonly Launcher[];
  private readonly runners: readonly Runner[];

  constructor(launchers: readonly Launcher[], runners: readonly Runner[]) {
    this.launchers = launchers;
    this.runners = runners;
  }

  /** ERR_LAUNCH_OPTIONS. */
  launcher(target: string): Launcher {
    const found = this.launchers.find((launcher) => launcher.target === target);
    if (found !== undefined) return found;
    const known = this.launchers.map((launcher) => launcher.target).join(', ');
    throw refuse(`no target "${target}"; there are ${known}`);
  }

  /** ERR_LAUNCH_OPTIONS. */
  runner(kind: WorkKind): Runner {
    const found = this.runners.find((runner) => runner.kind === kind);
    if (found !== undefined) return found;
    throw refuse(`this service runs no jobs of kind "${kind}"`);
  }

  /** What runs the job, and cleans up after it. */
  of({ kind, target }: Job, ports: WorkPorts): Worker {
    if (kind === 'drill' || kind === 'failover') {
      const launcher = this.launcher(target);
      return {
        run: async (live) => launcher.run(await launchOf(live, kind, ports)),
        clean: (made) => launcher.clean(made),
      };
    }
    const runner = this.runner(kind);
    return {
      run: (live) => runner.run(workOf(live, ports)),
      clean: (made) => runner.clean(made),
    };
  }
}
