/**
 * One virtual machine of a launch: made of the launch's options, found again after a restart of staging,
 * ended. Everything that it leaves on this machine is written down first.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Launch, LaunchOptions } from '../launcher.ts';
import { endProcess, processOf, removeMade } from '../made.ts';
import type { StopReason } from '../runner.ts';
import type { ChooseAcceleration } from './accelerator.ts';
import { type Accelerator, qemuWords, type VmDisk, type VmSpec, vmPaths } from './command.ts';
import {
  hasWritten,
  isFailover,
  makeDisks,
  makeFirmware,
  makeFolders,
  standsAlone,
  syncDisks,
} from './disks.ts';
import { identityOf } from './machine-identity.ts';
import { networkOf, type PortForward } from './network.ts';
import { forwardsOf, probeOf } from './options.ts';
import { claimPort } from './probe.ts';
import { lastWords, startProgram } from './programs.ts';
import { Qmp } from './qmp.ts';

/** What is done to the disks of a launch between overlay and boot. */
export interface DiskPreparation {
  /** `given` as they came, `options` completed; what is to be added to them. */
  check(given: Readonly<Record<string, unknown>>, options: LaunchOptions): Promise<LaunchOptions>;
  /**
   * Writes to the overlays alone and leaves nothing open. Called once for the disks of a launch: not when they are
   * found again.
   */
  prepare(launch: Launch, disks: readonly VmDisk[], accelerator: Accelerator): Promise<unknown>;
}

export interface VmMeans {
  readonly choose: ChooseAcceleration;
  readonly preparation: DiskPreparation | null;
  /** Where the keys and passwords of probes lie. */
  readonly probeKeys: string | null;
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
const SHUTDOWN_MS = 120_000;
/** A guest may sleep through the first press of the button. */
const PRESS_MS = 15_000;
const POLL_MS = 50;

export const isVmAlive = ({ runFolder }: Launch): boolean =>
  processOf(vmPaths(runFolder).pidfile) !== null;

/** Of one that runs no more: QEMU takes its pidfile away when it ends in order, a guest's shutdown too. */
export const wasKilled = ({ runFolder }: Launch): boolean => existsSync(vmPaths(runFolder).pidfile);

export const consolePath = ({ folder }: Launch): string => join(folder, 'console.log');
const qemuLog = ({ folder }: Launch): string => join(folder, 'qemu.log');

/** The machine of a former life of staging. Null: it was not started (this time). ERR_LAUNCH_GONE. */
export async function findVm(launch: Launch): Promise<Vm | null> {
  const { notes, starts } = launch;
  // Staging may have been killed before it could note that QEMU, which runs, had come up.
  if (notes.startedMs === undefined || (notes.start ?? 1) !== starts) return null;
  if (!isVmAlive(launch)) {
    if (notes.isUp !== true) return null;
    throw gone(launch);
  }
  // Its image servers ask on through the same socket, with a fresh credential.
  for (const [index, { volume }] of launch.point.volumes.entries()) {
    if (standsAlone(launch, index)) continue;
    await softly(
      launch,
      launch.imageAddress(volume).then(() => undefined),
    );
  }
  const qmp = await reach(launch, isFailover(launch) ? Number.POSITIVE_INFINITY : REACH_MS);
  await softly(launch, launch.remember({ isUp: true }));
  launch.say('found the virtual machine again, running');
  return { qmp, startedMs: Number(notes.startedMs), probePort: Number(notes.probePort ?? 0) };
}

/** It runs no more, and nobody has asked it to end. */
export function gone(launch: Launch): UnderstudyError {
  const kept = `; its disks are kept: failover start --again ${launch.jobId}`;
  const message = `the virtual machine no longer runs${isFailover(launch) ? kept : ''}`;
  return new UnderstudyError('ERR_LAUNCH_GONE', message);
}

/**
 * What a failover writes down may fail for want of room, and its machine must not end by that: true where
 * it is durable. Of a drill it fails the launch.
 */
export async function softly(launch: Launch, written: Promise<void>): Promise<boolean> {
  try {
    await written;
    return true;
  } catch (error) {
    if (!isFailover(launch) || !(error instanceof UnderstudyError)) throw error;
    launch.say(`not written down: ${error.message}`);
    return false;
  }
}

export async function startVm(launch: Launch, means: VmMeans): Promise<Vm> {
  const { options, clock, runFolder, starts: start } = launch;
  const { accelerator, reason } = await means.choose(String(options.accel));
  const slow = accelerator === 'tcg' ? ', emulated: it boots slowly' : '';
  launch.say(`accelerator ${accelerator} (${reason})${slow}`);
  // What a life that was killed on its way here has left.
  const isKept = hasWritten(launch);
  await removeMade(
    launch.made.filter(({ isProduct }) => !isKept || isProduct !== true),
    clock,
  );
  await makeFolders(launch);
  const probePort = 'port' in probeOf(options) ? await claimPort('127.0.0.1', 0) : 0;
  const spec = await specOf(launch, accelerator, probePort);
  if (!isKept) await means.preparation?.prepare(launch, spec.disks, accelerator);
  await syncDisks(launch, spec.disks);
  await launch.phase('starting the virtual machine');
  await claimPorts(options);
  const { pidfile } = vmPaths(runFolder);
  await launch.making({ kind: 'process', name: pidfile });
  const startedMs = clock.wallMs();
  await launch.remember({ startedMs, probePort, accelerator, start, isUp: false });
  await startProgram({
    ...{ name: 'qemu-system-x86_64', words: qemuWords(spec), pidfile, clock },
    logPath: qemuLog(launch),
    isLow: launch.options.priority === 'low',
  });
  const qmp = await reach(launch, REACH_MS);
  await softly(launch, launch.remember({ isUp: true }));
  return { qmp, startedMs, probePort };
}

/** ERR_LAUNCH_PORT where one that was asked for is taken. */
export async function claimPorts(options: Launch['options']): Promise<void> {
  const vnc = vncOf(options.vnc);
  if (vnc !== null) await claimPort(vnc.host, vnc.port);
  for (const { host, hostPort } of forwardsOf(options)) await claimPort(host, hostPort);
}

/** The socket comes a little after the pidfile. QEMU that ends at once says why in its log. */
export async function reach(launch: Launch, limitMs: number): Promise<Qmp> {
  const { clock, stop, leave } = launch;
  const endMs = clock.monotonicMs() + limitMs;
  for (;;) {
    try {
      return await Qmp.connect(vmPaths(launch.runFolder).qmp, clock);
    } catch (cause) {
      const isWorthWaiting = !stop.aborted && !leave.aborted && clock.monotonicMs() < endMs;
      if (isVmAlive(launch) && isWorthWaiting) {
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
  const probe = probeOf(options);
  const forwards: PortForward[] = forwardsOf(options);
  if ('port' in probe) {
    forwards.push({ host: '127.0.0.1', hostPort: probePort, guestPort: probe.port });
  }
  return {
    name: `understudy-${jobId}`,
    identity: identityOf(jobId),
    runFolder,
    consolePath: consolePath(launch),
    accelerator,
    memoryBytes: Number(options.memoryBytes),
    cpus: Number(options.cpus),
    bus: options.bus as VmSpec['bus'],
    card: (options.card ?? 'virtio') as VmSpec['card'],
    isDurable: isFailover(launch),
    isCopied: options.standAlone === true,
    disks: await makeDisks(launch),
    firmware: await makeFirmware(launch),
    bootDisk: Number(options.bootDisk),
    network: networkOf(String(options.network), forwards),
    vnc: vncOf(options.vnc),
    isRebootAnEnd: !isFailover(launch) && options.check === true && options.keepRunning !== true,
  };
}

export function vncOf(address: unknown): VmSpec['vnc'] {
  if (address === undefined) return null;
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(String(address))!;
  return { host: host!, port: Number(port) };
}

/**
 * Ends a machine whose data counts: the guest is asked to shut down, by its power button, and has the time
 * that was given. False: it had not, and was cut off, as by a loss of power.
 */
export async function shutDown(vm: Vm, launch: Launch): Promise<boolean> {
  const { clock, stop } = launch;
  const limitMs = (stop.reason as StopReason | null | undefined)?.timeoutMs ?? SHUTDOWN_MS;
  const endMs = clock.monotonicMs() + limitMs;
  let pressMs = clock.monotonicMs();
  while (isVmAlive(launch) && clock.monotonicMs() < endMs && !launch.leave.aborted) {
    if (clock.monotonicMs() >= pressMs) {
      pressMs += PRESS_MS;
      await press(vm, launch);
    }
    await sleep(clock, POLL_MS);
  }
  if (launch.leave.aborted) return true;
  if (!isVmAlive(launch)) return true;
  await endVm(vm, launch);
  return false;
}

async function press({ qmp }: Vm, launch: Launch): Promise<void> {
  try {
    // One that was paused by a full disk goes on first.
    await qmp.run('cont');
    await qmp.run('system_powerdown');
  } catch (error) {
    if (isVmAlive(launch)) launch.say(`power button: ${(error as Error).message}`);
  }
}

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
