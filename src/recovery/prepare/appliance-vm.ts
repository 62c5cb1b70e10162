/**
 * The virtual machine in which disks are prepared: our kernel and initramfs (appliance.ts), the disks of a
 * launch by their overlays, one port to talk through, no network, no screen. It runs for the length of one
 * preparation and is written down as a process of the job.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../base/clock.ts';
import type { Launch } from '../launcher.ts';
import { endProcess, processOf } from '../made.ts';
import { type Accelerator, escaped, type VmDisk } from '../qemu/command.ts';
import { lastWords, startProgram } from '../qemu/programs.ts';
import type { Appliance } from './appliance.ts';
import { PORT_NAME } from './appliance-script.ts';
import { Guest, GuestTalk, plainText, prepareFailed } from './guest.ts';

const MEMORY_MIB = 768;
const FIRST_ANSWER_MS = 240_000;
const POWER_OFF_MS = 20_000;
const POLL_MS = 50;

export const preparePaths = ({ runFolder, folder }: Pick<Launch, 'runFolder' | 'folder'>) => ({
  pidfile: join(runFolder, 'prepare.pid'),
  talk: join(runFolder, 'prepare.sock'),
  console: join(folder, 'prepare-console.log'),
  log: join(folder, 'prepare-qemu.log'),
});

export interface ApplianceVm {
  readonly guest: Guest;
  /** What is asked of it fails from now on. */
  fail(error: Error): void;
  /** Ends it, in whatever state it is. */
  end(): Promise<void>;
}

/** What the guest wrote goes to the overlay alone; what it only read is not kept there. */
function diskWords({ socketPath, overlayPath, sectorBytes }: VmDisk, index: number): string[] {
  const point = {
    ...{ driver: 'raw', 'node-name': `point${index}`, 'read-only': true },
    file: { driver: 'nbd', server: { type: 'unix', path: socketPath }, 'reconnect-delay': 60 },
  };
  const isAlone = socketPath === null;
  const disk = {
    ...{ driver: 'qcow2', 'node-name': `disk${index}`, cache: { 'no-flush': true } },
    file: { driver: 'file', filename: overlayPath, cache: { 'no-flush': true } },
    backing: isAlone ? null : `point${index}`,
  };
  const sectors =
    sectorBytes > 512
      ? `,logical_block_size=${sectorBytes},physical_block_size=${sectorBytes}`
      : '';
  return [
    ...(isAlone ? [] : ['-blockdev', JSON.stringify(point)]),
    ...['-blockdev', JSON.stringify(disk)],
    ...['-device', `virtio-blk-pci,drive=disk${index},serial=volume${index}${sectors}`],
  ];
}

export function applianceWords(
  paths: ReturnType<typeof preparePaths>,
  appliance: Appliance,
  disks: readonly VmDisk[],
  accelerator: Accelerator,
): string[] {
  const isTcg = accelerator === 'tcg';
  return [
    ...['-name', 'guest=understudy-prepare', '-machine', 'q35'],
    ...['-accel', isTcg ? 'tcg,thread=multi' : 'kvm', '-cpu', isTcg ? 'max' : 'host'],
    ...['-smp', '1', '-m', `${MEMORY_MIB}M`, '-nodefaults', '-no-user-config', '-no-reboot'],
    ...['-display', 'none', '-nic', 'none'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-pidfile', paths.pidfile],
    ...['-kernel', appliance.kernelPath, '-initrd', appliance.initramfsPath],
    ...['-append', 'console=ttyS0 quiet panic=-1 mitigations=off'],
    ...['-chardev', `file,id=console,path=${escaped(paths.console)}`],
    ...['-device', 'isa-serial,chardev=console'],
    ...['-chardev', `socket,id=talk,path=${escaped(paths.talk)},server=on,wait=off`],
    ...['-device', 'virtio-serial-pci', '-device', `virtserialport,chardev=talk,name=${PORT_NAME}`],
    ...disks.flatMap(diskWords),
  ];
}

/** ERR_PREPARE_FAILED with the last words of the console where it does not come up. */
export async function startAppliance(
  launch: Launch,
  appliance: Appliance,
  disks: readonly VmDisk[],
  accelerator: Accelerator,
): Promise<ApplianceVm> {
  const paths = preparePaths(launch);
  await launch.making({ kind: 'process', name: paths.pidfile });
  const words = applianceWords(paths, appliance, disks, accelerator);
  const { pidfile, log: logPath } = paths;
  const { clock } = launch;
  const isLow = launch.options.priority === 'low';
  await startProgram({ name: 'qemu-system-x86_64', words, pidfile, logPath, clock, isLow });
  const stopped = (): void => talk?.fail(prepareFailed('stopped'));
  const stop = AbortSignal.any([launch.stop, launch.leave]);
  let talk: GuestTalk | null = null;
  const end = async (): Promise<void> => {
    stop.removeEventListener('abort', stopped);
    talk?.close();
    await ended(launch);
  };
  try {
    while (!existsSync(paths.talk)) {
      if (processOf(pidfile) === null) throw prepareFailed('QEMU has ended');
      await sleep(clock, POLL_MS);
    }
    talk = await GuestTalk.connect(paths.talk, clock);
    stop.addEventListener('abort', stopped);
    if (stop.aborted) stopped();
    // Any answer will do: it is up.
    await talk.ask('stat /', 64, FIRST_ANSWER_MS);
    const opened = talk;
    return { guest: new Guest(opened), end, fail: (error) => opened.fail(error) };
  } catch (cause) {
    await end();
    const said = existsSync(paths.console) ? plainText(Buffer.from(lastWords(paths.console))) : '';
    throw prepareFailed(`the machine for it did not come up: ${said || lastWords(logPath)}`, cause);
  }
}

/** It powers itself off when nobody asks any more. */
async function ended(launch: Launch): Promise<void> {
  const { clock, stop, leave } = launch;
  const { pidfile } = preparePaths(launch);
  // Of a preparation that is given up nothing is kept.
  const patienceMs = stop.aborted || leave.aborted ? 0 : POWER_OFF_MS;
  const endMs = clock.monotonicMs() + patienceMs;
  while (processOf(pidfile) !== null && clock.monotonicMs() < endMs) await sleep(clock, POLL_MS);
  await endProcess(pidfile, clock);
}
