/**
 * The target `qemu`: boots a point at once in a virtual machine on the staging machine, straight from the
 * point's image URL, with an overlay for what is written. With a check it waits for the login prompt on
 * the serial console, or for the operator's probe, and keeps the evidence. A drill leaves nothing; a
 * failover's disks are a product, and are copied in the background until they stand alone.
 */
import { totalmem } from 'node:os';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import { TABLE_BYTES } from '../../model/partition-table.ts';
import type { ImageReader, ListedPoint } from '../../store/types.ts';
import { type BootFacts, bootFacts } from '../boot-mode.ts';
import type { Launch, LaunchEnd, Launcher, LaunchOptions } from '../launcher.ts';
import { removeMade } from '../made.ts';
import type { LaunchKind } from '../runner.ts';
import { createAccelerationChoice } from './accelerator.ts';
import { vmPaths } from './command.ts';
import { hasWritten, isFailover } from './disks.ts';
import { findFirmware } from './firmware.ts';
import { identityOf } from './machine-identity.ts';
import { networkOf } from './network.ts';
import { checkNetwork } from './network-check.ts';
import { forwardsOf, type Probe, probeOf, qemuOptions } from './options.ts';
import { probeFile, probePassword } from './probe-files.ts';
import { runProgram } from './programs.ts';
import {
  claimPorts,
  consolePath,
  findVm,
  softly,
  startVm,
  type Vm,
  type VmMeans,
  vncOf,
} from './vm.ts';
import { Watch } from './watch.ts';

export function createQemuLauncher(
  clock: Clock,
  { preparation = null, probeKeys = null }: Partial<Omit<VmMeans, 'choose'>> = {},
): Launcher {
  const means = { choose: createAccelerationChoice(clock), preparation, probeKeys };
  return {
    target: 'qemu',
    readOptions: async (given, kind) => readOptions(given, kind),
    check: (given, point, openImage, kind) => check(given, { point, openImage, kind, means }),
    run: (launch) => run(launch, means),
    clean: (made) => removeMade(made, clock),
  };
}

interface CheckInputs {
  readonly point: ListedPoint;
  readonly openImage: (volume: string) => Promise<ImageReader>;
  readonly kind: LaunchKind;
  readonly means: VmMeans;
}

function readOptions(given: Readonly<Record<string, unknown>>, kind: LaunchKind): LaunchOptions {
  const options = qemuOptions(given, kind);
  const vnc = vncOf(options.vnc);
  if (vnc === null || (vnc.port >= 5900 && vnc.port <= 65_535)) return options;
  throw new UnderstudyError('ERR_LAUNCH_OPTIONS', '`vnc` must be HOST:PORT, port 5900 or above');
}

async function check(
  given: Readonly<Record<string, unknown>>,
  { point, openImage, kind, means }: CheckInputs,
): Promise<LaunchOptions> {
  const options = readOptions(given, kind);
  checkMemory(Number(options.memoryBytes), totalmem());
  await runProgram('qemu-system-x86_64', ['--version']);
  await runProgram('qemu-img', ['--version']);
  checkNetwork(networkOf(String(options.network), forwardsOf(options)));
  await claimPorts(options);
  await checkMeans(probeOf(options), means);
  const { index, facts } = await bootDisk(point, openImage, options.firmware !== 'auto');
  const firmware = options.firmware === 'auto' ? facts.mode! : options.firmware!;
  if (firmware === 'uefi') findFirmware();
  const prepare = await means.preparation?.check(given, options);
  return { ...options, ...prepare, firmware, bootDisk: index, bootSeen: facts.seen };
}

/** More than there is would be found out by QEMU, after all that comes before. ERR_LAUNCH_OPTIONS. */
export function checkMemory(wantedBytes: number, machineBytes: number): void {
  if (wantedBytes <= machineBytes) return;
  const has = `this machine has ${formatSize(machineBytes)}`;
  const message = `memory of ${formatSize(wantedBytes)} is wanted, and ${has}`;
  throw new UnderstudyError('ERR_LAUNCH_OPTIONS', message);
}

/** What the probe needs on this machine. ERR_LAUNCH_OPTIONS, ERR_LAUNCH_PROGRAM. */
async function checkMeans(probe: Probe, { probeKeys }: VmMeans): Promise<void> {
  if (probe.kind === 'ssh') {
    await probeFile(probe.key, probeKeys);
    await runProgram('ssh', ['-V']);
  }
  if (probe.kind === 'serial' && probe.passwordFile !== null) {
    await probePassword(probe.passwordFile, probeKeys);
  }
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
  const found = await findVm(launch);
  const watch = new Watch(found ?? (await start(launch, means)), launch, means);
  try {
    await softly(launch, launch.up(accessOf(launch)));
    return await watch.untilEnd();
  } finally {
    watch.close();
  }
}

async function start(launch: Launch, means: VmMeans): Promise<Vm> {
  const { options } = launch;
  launch.say(`boots by ${options.firmware} (${options.bootSeen})`);
  // It may have run, unseen, before this machine or staging went down: from here on its disks are kept.
  if (hasWritten(launch)) await launch.up(accessOf(launch));
  return startVm(launch, means);
}

function accessOf(launch: Launch): Record<string, string> {
  const { options, jobId } = launch;
  const { serial } = vmPaths(launch.runFolder);
  const { uuid, serialNumber, mac } = identityOf(jobId);
  return {
    serial: `socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:${serial}`,
    console: consolePath(launch),
    ...(options.vnc !== undefined && { vnc: String(options.vnc) }),
    ...(options.forward !== undefined && { forward: String(options.forward) }),
    ...{ network: String(options.network), machine: uuid, serialNumber },
    ...(options.network !== 'none' && { mac }),
    ...(isFailover(launch) && { disks: launch.productFolder }),
  };
}
