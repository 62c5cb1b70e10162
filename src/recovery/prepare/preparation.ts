/**
 * Boot preparation as launches use it: the option `prepare`, the appliance of this machine, one run over the
 * disks of a launch, and its evidence in the folder of the job (prepare.json, prepare-console.log).
 * `auto` that nobody asked for goes without where this machine has no kernel for it, and says so; where it
 * was asked for, that is an error before anything is made.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError } from '../../base/node-disk.ts';
import { formatDuration } from '../../base/units.ts';
import type { Launch, LaunchOptions } from '../launcher.ts';
import type { Accelerator, VmDisk } from '../qemu/command.ts';
import { type Appliance, openAppliance } from './appliance.ts';
import { startAppliance } from './appliance-vm.ts';
import { prepareFailed } from './guest.ts';
import { prepareDisks } from './prepare.ts';
import { noteLine, type PrepareReport } from './report.ts';

export interface PreparationOptions {
  readonly clock: Clock;
  /** The data directory. */
  readonly folder: string;
  /** A Debian package of a kernel, or a folder with boot/ and lib/modules/; else this machine's own. */
  readonly kernel: string | undefined;
}

/** A hostile disk could make each single answer slow. */
const LIMIT_MS = 20 * 60_000;

export class Preparation {
  private readonly options: PreparationOptions;
  private opening: Promise<unknown> = Promise.resolve();

  constructor(options: PreparationOptions) {
    this.options = options;
  }

  /**
   * `options` as completed by the rules, `given` as they came; what is to be added to the options of the
   * launch. ERR_APPLIANCE_KERNEL, ERR_APPLIANCE.
   */
  async check(
    given: Readonly<Record<string, unknown>>,
    options: LaunchOptions,
  ): Promise<LaunchOptions> {
    if (options.prepare === 'none') return {};
    try {
      await this.appliance();
      return {};
    } catch (cause) {
      const isOurs = cause instanceof UnderstudyError && cause.code.startsWith('ERR_APPLIANCE');
      if (!isOurs || given.prepare === 'auto') throw cause;
      return {
        prepare: 'none',
        prepareNot: `${cause.message}. ${cause.spec.hint}`,
      };
    }
  }

  /**
   * Prepares the disks of a launch, by their overlays. The report; null where none was wanted.
   * ERR_PREPARE_FAILED.
   */
  async prepare(
    launch: Launch,
    disks: readonly VmDisk[],
    accelerator: Accelerator,
  ): Promise<PrepareReport | null> {
    const { options } = launch;
    if (options.prepare !== 'auto') {
      const why = options.prepareNot === undefined ? 'as asked for' : String(options.prepareNot);
      const loud = options.prepareNot === undefined ? '' : 'WARNING ';
      launch.say(`prepare: ${loud}the disks boot as they are: ${why}`);
      return null;
    }
    await launch.phase('preparing to boot');
    const appliance = await this.appliance();
    const report = await this.runIn(appliance, launch, disks, accelerator);
    await keepReport(launch, report);
    return report;
  }

  /** One after another: what lies half made is of a life that was killed. */
  private appliance(): Promise<Appliance> {
    const { folder, kernel } = this.options;
    const next = () => openAppliance(join(folder, 'appliance'), kernel);
    const opened = this.opening.then(next, next);
    this.opening = opened;
    return opened;
  }

  private async runIn(
    appliance: Appliance,
    launch: Launch,
    disks: readonly VmDisk[],
    accelerator: Accelerator,
  ): Promise<PrepareReport> {
    const { options, kind, point, jobId } = launch;
    const isOn = options.agent === 'on' || (options.agent !== 'off' && kind === 'failover');
    const vm = await startAppliance(launch, appliance, disks, accelerator);
    const timer = this.options.clock.after(LIMIT_MS, () => {
      vm.fail(prepareFailed('boot preparation did not end in time'));
    });
    try {
      const wish = {
        volumes: point.volumes.map(({ volume }) => volume),
        agent: isOn ? 'on' : 'off',
        hasLvm: appliance.hasLvm,
        about: { kind, job: jobId, server: point.server, point: point.id },
      } as const;
      return await prepareDisks(vm.guest, wish, this.options.clock);
    } catch (cause) {
      if (cause instanceof UnderstudyError) throw cause;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw prepareFailed(`boot preparation: ${why}`, cause);
    } finally {
      timer.cancel();
      await vm.end();
    }
  }
}

async function keepReport(launch: Launch, report: PrepareReport): Promise<void> {
  const path = join(launch.folder, 'prepare.json');
  await writeFile(path, `${JSON.stringify(report, null, 2)}\n`, { mode: 0o600 }).catch(
    (cause: unknown) => {
      throw diskError(cause, path);
    },
  );
  for (const note of report.notes) launch.say(noteLine(note));
  const took = formatDuration(report.tookMs);
  if (report.state === 'unknown') {
    launch.say(`prepare: WARNING nothing was prepared: the disks boot as they are (${took})`);
  } else launch.say(`prepare: done in ${took}`);
}
