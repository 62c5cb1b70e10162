/**
 * One virtual machine of a launch: made of the launch's options, found again after a restart of staging,
 * ended. Everything that it leaves on this machine is written down first.
 */
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError } from '../../base/node-disk.ts';
import type { Launch } from '../launcher.ts';
import { endProcess, processOf, removeMade } from '../made.ts';
import type { ChooseAcceleration } from './accelerator.ts';
import { type Accelerator, qemuWords, type VmDisk, type VmSpec, vmPaths } from './command.ts';
import { findFirmware } from './firmware.ts';
import { imageServerPaths, startImageServer } from './image-server.ts';
import { probeOf } from './options.ts';
import { claimPort } from './probe.ts';
import { lastWords, runProgram, startProgram } from './programs.ts';
import { Qmp } from './qmp.ts';

/**
 * What is done to the disks between overlay and boot: it writes to the overlays alone, in whatever way it
 * likes, and leaves nothing open. Called once for the disks of a launch: not when they are found again.
 */
export type PrepareDisks = (launch: Launch, disks: readonly VmDisk[]) => Promise<void>;

export interface VmMeans {
  readonly choose: ChooseAcceleration;
  readonly prepareDisks: PrepareDisks | null;
}

export interface Vm {
  readonly qmp: Qmp;
  /** Wall clock, when QEMU was started. */
  readonly startedMs: number;
  /** Port of this machine that leads to the probe's; 0 without one. */
  readonly probePort: number;
}

const QUIT_MS = 10_000;
const REACH_MS = 30_000;
const POLL_MS = 50;

export const isVmAlive = ({ runFolder }: Launch): boolean =>
  processOf(vmPaths(runFolder).pidfile) !== null;

export const consolePath = ({ folder }: Launch): string => join(folder, 'console.log');
const qemuLog = ({ folder }: Launch): string => join(folder, 'qemu.log');

/** The machine of a former life of staging. Null: it was never started. ERR_LAUNCH_GONE. */
export async function findVm(launch: Launch): Promise<Vm | null> {
  const { notes, runFolder } = launch;
  // Staging may have been killed before it could note that QEMU, which runs, had come up.
  if (notes.startedMs === undefined) return null;
  if (!isVmAlive(launch)) {
    if (notes.isUp !== true) return null;
    throw new UnderstudyError('ERR_LAUNCH_GONE', 'the virtual machine no longer runs');
  }
  const startedMs = Number(notes.startedMs);
  // Its image servers ask on through the same socket, with a fresh credential.
  for (const { volume } of launch.point.volumes) await launch.imageAddress(volume);
  const qmp = await reach(launch, vmPaths(runFolder).qmp);
  await launch.remember({ isUp: true });
  launch.say('found the virtual machine again, running');
  return { qmp, startedMs, probePort: Number(notes.probePort ?? 0) };
}

export async function startVm(launch: Launch, means: VmMeans): Promise<Vm> {
  const { options, clock, runFolder, workFolder } = launch;
  const { accelerator, reason } = await means.choose(String(options.accel));
  const slow = accelerator === 'tcg' ? ', emulated: it boots slowly' : '';
  launch.say(`accelerator ${accelerator} (${reason})${slow}`);
  // What a life that was killed on its way here has left.
  await removeMade(launch.made, clock);
  for (const name of [workFolder, runFolder]) {
    await launch.making({ kind: 'folder', name });
    await guarded(name, mkdir(name, { recursive: true, mode: 0o700 }));
  }
  const probe = probeOf(options);
  const probePort = probe.kind === 'console' ? 0 : await claimPort('127.0.0.1', 0);
  const spec = await specOf(launch, accelerator, probePort);
  if (means.prepareDisks !== null) await means.prepareDisks(launch, spec.disks);
  await launch.phase('starting the virtual machine');
  const { pidfile, qmp: qmpPath } = vmPaths(runFolder);
  await launch.making({ kind: 'process', name: pidfile });
  const startedMs = clock.wallMs();
  await launch.remember({ startedMs, probePort, accelerator });
  const logPath = qemuLog(launch);
  await startProgram({
    ...{ name: 'qemu-system-x86_64', words: qemuWords(spec), pidfile, logPath, clock },
  });
  const qmp = await reach(launch, qmpPath);
  await launch.remember({ isUp: true });
  return { qmp, startedMs, probePort };
}

/** The socket comes a little after the pidfile. QEMU that ends at once says why in its log. */
async function reach(launch: Launch, path: string): Promise<Qmp> {
  const { clock } = launch;
  const endMs = clock.monotonicMs() + REACH_MS;
  for (;;) {
    try {
      return await Qmp.connect(path, clock);
    } catch (cause) {
      if (isVmAlive(launch) && clock.monotonicMs() < endMs) {
        await sleep(clock, POLL_MS);
        continue;
      }
      const said = lastWords(qemuLog(launch));
      if (said === '') throw cause;
      throw new UnderstudyError('ERR_LAUNCH_FAILED', `qemu-system-x86_64: ${said}`, {}, cause);
    }
  }
}

async function specOf(
  launch: Launch,
  accelerator: Accelerator,
  probePort: number,
): Promise<VmSpec> {
  const { options, runFolder, jobId } = launch;
  const disks: VmDisk[] = [];
  for (const index of launch.point.volumes.keys()) disks.push(await makeDisk(launch, index));
  const probe = probeOf(options);
  const forwards = probe.kind === 'console' ? [] : [{ hostPort: probePort, guestPort: probe.port }];
  return {
    name: `understudy-${jobId}`,
    runFolder,
    consolePath: consolePath(launch),
    accelerator,
    memoryBytes: Number(options.memoryBytes),
    cpus: Number(options.cpus),
    bus: options.bus as VmSpec['bus'],
    firmware: await makeFirmware(launch),
    disks,
    bootDisk: Number(options.bootDisk),
    network: options.network === 'none' ? null : { forwards },
    vnc: vncOf(options.vnc),
    isRebootAnEnd: options.check === true && options.keepRunning !== true,
  };
}

export function vncOf(address: unknown): VmSpec['vnc'] {
  if (address === undefined) return null;
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(String(address))!;
  return { host: host!, port: Number(port) };
}

/** The point's bytes behind a socket, and an empty overlay for what the guest writes. */
async function makeDisk(launch: Launch, index: number): Promise<VmDisk> {
  const { runFolder, workFolder, folder, clock, point } = launch;
  const { volume, sizeBytes, sectorBytes } = point.volumes[index]!;
  await launch.phase(`opening ${volume}`);
  const { pidfile, socketPath } = imageServerPaths(runFolder, index);
  await launch.making({ kind: 'process', name: pidfile });
  const address = await launch.imageAddress(volume);
  await startImageServer(address, {
    ...{ runFolder, index, clock, logPath: join(folder, `disk${index}.log`) },
  });
  const overlayPath = join(workFolder, `disk${index}.qcow2`);
  const wholeBytes = Math.ceil(sizeBytes / 512) * 512;
  await runProgram('qemu-img', ['create', '-q', '-f', 'qcow2', overlayPath, String(wholeBytes)]);
  return { socketPath, overlayPath, sectorBytes };
}

async function makeFirmware({ options, workFolder }: Launch): Promise<VmSpec['firmware']> {
  if (options.firmware === 'bios') return { mode: 'bios' };
  const { codePath, variablesPath } = findFirmware();
  const own = join(workFolder, 'variables.fd');
  await guarded(own, copyFile(variablesPath, own));
  return { mode: 'uefi', codePath, variablesPath: own };
}

const guarded = <Value>(path: string, promise: Promise<Value>): Promise<Value> =>
  promise.catch((cause: unknown) => {
    throw diskError(cause, path);
  });

/** By its own word first, then by force. */
export async function endVm({ qmp }: Vm, launch: Launch): Promise<void> {
  const { clock, runFolder } = launch;
  await qmp.run('quit').catch((error: UnderstudyError) => {
    launch.say(`quit: ${error.message}`);
  });
  qmp.close();
  const endMs = clock.monotonicMs() + QUIT_MS;
  while (isVmAlive(launch) && clock.monotonicMs() < endMs) await sleep(clock, POLL_MS);
  await endProcess(vmPaths(runFolder).pidfile, clock);
}

/** The guest's screen, as screenshot.png in the job's folder (.ppm where QEMU knows no PNG). */
export async function takeScreenshot({ qmp }: Vm, launch: Launch): Promise<string> {
  const name = (type: string) => join(launch.folder, `screenshot.${type}`);
  try {
    await qmp.run('screendump', { filename: name('png'), format: 'png' });
    return 'screenshot.png';
  } catch (error) {
    launch.say(`no PNG: ${error instanceof Error ? error.message : String(error)}`);
    await qmp.run('screendump', { filename: name('ppm') });
    return 'screenshot.ppm';
  }
}
