/**
 * The target `qemu`: boots a point at once in a virtual machine on the staging machine, straight from the
 * point's image URL, with an overlay for what is written. With a check it waits for the login prompt on
 * the serial console, or for the operator's probe, keeps the evidence and ends the machine.
 */
import { type Clock, sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import { TABLE_BYTES } from '../../model/partition-table.ts';
import type { ImageReader, ListedPoint } from '../../store/types.ts';
import { type BootFacts, bootFacts } from '../boot-mode.ts';
import type { CheckResult, Launch, LaunchEnd, Launcher, LaunchOptions } from '../launcher.ts';
import { removeMade } from '../made.ts';
import { createAccelerationChoice } from './accelerator.ts';
import { vmPaths } from './command.ts';
import { ConsoleReader } from './console.ts';
import { findFirmware } from './firmware.ts';
import { probeOf, qemuOptions } from './options.ts';
import { claimPort, tryProbe } from './probe.ts';
import { runProgram } from './programs.ts';
import {
  consolePath,
  endVm,
  findVm,
  isVmAlive,
  startVm,
  takeScreenshot,
  type Vm,
  type VmMeans,
  vncOf,
} from './vm.ts';

const LOOK_MS = 250;

export function createQemuLauncher(
  clock: Clock,
  prepareDisks: VmMeans['prepareDisks'] = null,
): Launcher {
  const means = { choose: createAccelerationChoice(clock), prepareDisks };
  return {
    target: 'qemu',
    check,
    run: (launch) => run(launch, means),
    clean: (made) => removeMade(made, clock),
  };
}

async function check(
  given: Readonly<Record<string, unknown>>,
  point: ListedPoint,
  openImage: (volume: string) => Promise<ImageReader>,
): Promise<LaunchOptions> {
  const options = qemuOptions(given);
  const vnc = vncOf(options.vnc);
  if (vnc !== null && (vnc.port < 5900 || vnc.port > 65_535)) {
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', 'vnc must be HOST:PORT, port 5900 or above');
  }
  await runProgram('qemu-system-x86_64', ['--version']);
  await runProgram('qemu-img', ['--version']);
  await runProgram('nbdkit', ['curl', '--version']);
  if (vnc !== null) await claimPort(vnc.host, vnc.port);
  const { index, facts } = await bootDisk(point, openImage, options.firmware !== 'auto');
  const firmware = options.firmware === 'auto' ? facts.mode! : options.firmware!;
  if (firmware === 'uefi') findFirmware();
  return { ...options, firmware, bootDisk: index, bootSeen: facts.seen };
}

/** The first volume that boots; where the firmware was told, the first one will do. */
async function bootDisk(
  point: ListedPoint,
  openImage: (volume: string) => Promise<ImageReader>,
  isFirmwareTold: boolean,
): Promise<{ index: number; facts: BootFacts }> {
  const seen: { index: number; facts: BootFacts }[] = [];
  for (const [index, { volume }] of point.volumes.entries()) {
    const image = await openImage(volume);
    try {
      const facts = bootFacts(await image.read(0, Math.min(TABLE_BYTES, image.sizeBytes)));
      if (facts.mode !== null) return { index, facts };
      seen.push({ index, facts });
    } finally {
      image.close();
    }
  }
  if (isFirmwareTold && seen[0] !== undefined) return seen[0];
  const what = seen.map(({ index, facts }) => `${point.volumes[index]!.volume}: ${facts.seen}`);
  const message = `no volume of point ${point.id} boots (${what.join('; ')})`;
  throw new UnderstudyError('ERR_LAUNCH_NOT_BOOTABLE', message);
}

async function run(launch: Launch, means: VmMeans): Promise<LaunchEnd> {
  const { options } = launch;
  const found = await findVm(launch);
  if (found === null) launch.say(`boots by ${options.firmware} (${options.bootSeen})`);
  const vm = found ?? (await startVm(launch, means));
  try {
    await launch.up(accessOf(launch));
    return await new Watch(vm, launch).untilEnd();
  } finally {
    vm.qmp.close();
  }
}

function accessOf(launch: Launch): Record<string, string> {
  const { serial } = vmPaths(launch.runFolder);
  return {
    serial: `socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:${serial}`,
    console: consolePath(launch),
    ...(launch.options.vnc === undefined ? {} : { vnc: String(launch.options.vnc) }),
  };
}

/** Follows a machine until it ends, is stopped, or is left to itself. */
class Watch {
  private readonly vm: Vm;
  private readonly launch: Launch;
  private readonly console: ConsoleReader;
  private isCheckDue: boolean;

  constructor(vm: Vm, launch: Launch) {
    this.vm = vm;
    this.launch = launch;
    this.console = new ConsoleReader(consolePath(launch));
    this.isCheckDue = launch.options.check === true && launch.notes.isChecked !== true;
  }

  async untilEnd(): Promise<LaunchEnd> {
    const { launch, vm } = this;
    await launch.phase(this.isCheckDue ? 'checking' : 'up');
    for (;;) {
      if (launch.stop.aborted) {
        await endVm(vm, launch);
        return 'done';
      }
      if (launch.leave.aborted) return 'left';
      if (this.isCheckDue && (await this.look())) return 'done';
      if (!isVmAlive(launch)) return this.endedItself();
      if (this.console.trim()) launch.say('the console log had grown too large and was emptied');
      await sleep(launch.clock, LOOK_MS);
    }
  }

  private async endedItself(): Promise<LaunchEnd> {
    if (this.isCheckDue) await this.fail('the virtual machine ended before the check');
    this.launch.say('the guest has shut itself down');
    return 'done';
  }

  private bootMs(): number {
    return Math.round(this.launch.clock.wallMs() - this.vm.startedMs);
  }

  /** True: the check passed and the machine was ended. */
  private async look(): Promise<boolean> {
    const { launch, vm } = this;
    const probe = probeOf(launch.options);
    const said = this.console.judge();
    if (said.kind === 'stuck') await this.fail(`the console says: ${said.line}`);
    let detail: string | null = null;
    if (probe.kind === 'console') detail = said.kind === 'login' ? said.line : null;
    else if (isVmAlive(launch)) {
      const { probePort: hostPort, qmp } = vm;
      detail = await tryProbe(probe, { hostPort, qmp, clock: launch.clock });
    }
    if (detail === null) {
      if (this.bootMs() <= Number(launch.options.timeoutMs)) return false;
      await this.fail(`no answer within ${formatDuration(Number(launch.options.timeoutMs))}`);
    }
    await this.record(true, detail!);
    if (launch.options.keepRunning === true) {
      await launch.phase('up');
      return false;
    }
    await endVm(vm, launch);
    return true;
  }

  private async fail(detail: string): Promise<never> {
    await this.record(false, detail);
    throw new UnderstudyError('ERR_BOOT_CHECK', `the boot check failed: ${detail}`);
  }

  private async record(passed: boolean, detail: string): Promise<void> {
    const { launch, vm } = this;
    const bootMs = this.bootMs();
    this.isCheckDue = false;
    if (isVmAlive(launch)) {
      const name = await takeScreenshot(vm, launch).catch((error: Error) => error.message);
      launch.say(`screen: ${name}`);
    }
    const result: CheckResult = {
      ...{ passed, bootMs, detail, probe: String(launch.options.probe ?? 'console') },
    };
    await launch.checked(result);
    await launch.remember({ isChecked: true });
    launch.say(`check ${passed ? 'passed' : 'failed'} after ${formatDuration(bootMs)}: ${detail}`);
  }
}
