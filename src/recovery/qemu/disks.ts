/**
 * The disks of a virtual machine: the point's bytes behind a socket, and an overlay for what the guest
 * writes. A drill's overlays lie in the job's work folder and go with it. A failover's are its product:
 * once QEMU may have run they are never made again, and those that stand alone need no point.
 */
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { diskError, nodeDisk } from '../../base/node-disk.ts';
import type { Launch } from '../launcher.ts';
import { endProcess, processOf } from '../made.ts';
import type { VmDisk, VmSpec } from './command.ts';
import { findFirmware } from './firmware.ts';
import { holesOf, markHoles } from './holes.ts';
import { imageServerPaths, startImageServer } from './image-server.ts';
import { runProgram } from './programs.ts';

export const isFailover = ({ kind }: Launch): boolean => kind === 'failover';

/** QEMU was started with these disks before: what they hold may be nowhere else. */
export const hasWritten = (launch: Launch): boolean =>
  isFailover(launch) && launch.notes.startedMs !== undefined;

export const diskFolder = (launch: Launch): string =>
  isFailover(launch) ? launch.productFolder : launch.workFolder;

export const overlayPath = (launch: Launch, index: number): string =>
  join(diskFolder(launch), `disk${index}.qcow2`);

/** The note that a disk has all that it needs of the point. */
export const aloneNote = (index: number): string => `alone${index}`;
export const standsAlone = ({ notes }: Launch, index: number): boolean =>
  notes[aloneNote(index)] === true;

export async function makeFolders(launch: Launch): Promise<void> {
  await launch.making({ kind: 'folder', name: launch.workFolder });
  await launch.making({ kind: 'folder', name: launch.runFolder });
  if (isFailover(launch)) {
    await launch.making({ kind: 'folder', name: launch.productFolder, isProduct: true });
  }
  for (const name of [launch.workFolder, launch.runFolder, diskFolder(launch)]) {
    await guarded(name, mkdir(name, { recursive: true, mode: 0o700 }));
  }
}

export async function makeDisks(launch: Launch): Promise<VmDisk[]> {
  const disks: VmDisk[] = [];
  for (const [index, { volume, sizeBytes, sectorBytes }] of launch.point.volumes.entries()) {
    await launch.phase(`opening ${volume}`);
    const socketPath = standsAlone(launch, index) ? null : await serve(launch, index);
    const path = overlayPath(launch, index);
    const wholeBytes = String(Math.ceil(sizeBytes / 512) * 512);
    if (!hasWritten(launch)) {
      await runProgram('qemu-img', ['create', '-q', '-f', 'qcow2', path, wholeBytes]);
      if (launch.options.standAlone === true) await skipHoles(launch, volume, path);
    }
    disks.push({ socketPath, overlayPath: path, sectorBytes });
  }
  return disks;
}

async function serve(launch: Launch, index: number): Promise<string> {
  const { runFolder, folder, clock } = launch;
  const { volume, sizeBytes } = launch.point.volumes[index]!;
  const { pidfile, socketPath } = imageServerPaths(runFolder, index);
  await launch.making({ kind: 'process', name: pidfile });
  const address = await launch.imageAddress(volume);
  const logPath = join(folder, `disk${index}.log`);
  const isLow = launch.options.priority === 'low';
  await startImageServer(address, { runFolder, index, sizeBytes, clock, logPath, isLow });
  return socketPath;
}

async function skipHoles(launch: Launch, volume: string, path: string): Promise<void> {
  const image = await launch.openImage(volume);
  try {
    await markHoles(path, await holesOf(image, launch.clock));
  } finally {
    image.close();
  }
}

/** Those that have ended (killed, out of memory) serve again: QEMU tries on, and what waits for them goes on. */
export async function serveAgain(launch: Launch, indexes: readonly number[]): Promise<void> {
  for (const index of indexes) {
    const { pidfile, socketPath } = imageServerPaths(launch.runFolder, index);
    if (processOf(pidfile) !== null) continue;
    const { volume } = launch.point.volumes[index]!;
    await guarded(socketPath, rm(socketPath, { force: true }));
    await serve(launch, index);
    launch.say(`the image server of ${volume} had ended: started again`);
  }
}

/** A disk that stands alone has none. */
export const endImageServer = ({ runFolder, clock }: Launch, index: number): Promise<void> =>
  endProcess(imageServerPaths(runFolder, index).pidfile, clock);

/** What was made of a failover's disks is on the disk of this machine when it resolves. */
export async function syncDisks(launch: Launch, disks: readonly VmDisk[]): Promise<void> {
  if (!isFailover(launch)) return;
  for (const disk of disks) await syncFile(disk.overlayPath);
  await nodeDisk.syncDirectory(launch.productFolder);
  await nodeDisk.syncDirectory(dirname(launch.productFolder));
}

/** What was written to a file by others is on the disk of this machine when it resolves. ERR_DISK_*. */
export async function syncFile(path: string): Promise<void> {
  const file = await nodeDisk.open(path, 'write');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function makeFirmware(launch: Launch): Promise<VmSpec['firmware']> {
  if (launch.options.firmware === 'bios') return { mode: 'bios' };
  const { codePath, variablesPath } = findFirmware();
  const own = join(diskFolder(launch), 'variables.fd');
  if (!hasWritten(launch)) {
    await guarded(own, copyFile(variablesPath, own));
    // It is never made again: without it the disks that are kept could not be started.
    if (isFailover(launch)) await syncFile(own);
  }
  return { mode: 'uefi', codePath, variablesPath: own };
}

const guarded = <Value>(path: string, promise: Promise<Value>): Promise<Value> =>
  promise.catch((cause: unknown) => {
    throw diskError(cause, path);
  });
