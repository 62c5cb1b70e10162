/**
 * Prepared disks for launches that copy images (export, EC2): the point's images behind sockets, an overlay
 * each, one preparation over all of them, then the overlays' changed extents, read where they lie in the
 * files. What an earlier life of the launch has prepared is used again, for preparing anew gives other bytes.
 */
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { diskError, nodeDisk } from '../../base/node-disk.ts';
import type { ImageOverlay } from '../image-overlay.ts';
import { checkOptions, type OptionRule } from '../launch-options.ts';
import type { Launch, Launcher } from '../launcher.ts';
import { endProcess } from '../made.ts';
import { prepareRules } from '../prepare-options.ts';
import { createAccelerationChoice } from '../qemu/accelerator.ts';
import type { VmDisk } from '../qemu/command.ts';
import { syncFile } from '../qemu/disks.ts';
import { imageServerPaths, startImageServer } from '../qemu/image-server.ts';
import { runProgram } from '../qemu/programs.ts';
import { preparePaths } from './appliance-vm.ts';
import type { Preparation } from './preparation.ts';

export type PrepareImages = (launch: Launch) => Promise<ReadonlyMap<string, ImageOverlay>>;

/** By volume; empty where nothing is to be prepared. */
export const prepareImages =
  (preparation: Preparation): PrepareImages =>
  async (launch) => {
    const { options, notes } = launch;
    if (options.prepare !== 'auto') {
      const { prepareNot: why } = options;
      if (why !== undefined) launch.say(`prepare: WARNING the disks are left as they are: ${why}`);
      return new Map();
    }
    const preparedBy = notes.preparedBy ?? (await prepareAll(preparation, launch));
    const overlays = new Map<string, ImageOverlay>();
    for (const [index, { volume, sizeBytes }] of launch.point.volumes.entries()) {
      const id = `${launch.jobId}-${preparedBy}-${index}`;
      const overlay = await readOverlay(overlayPath(launch, index), id, sizeBytes);
      if (overlay.changed.length > 0) overlays.set(volume, overlay);
    }
    return overlays;
  };

const overlayPath = ({ workFolder }: Launch, index: number): string =>
  join(workFolder, `prepared${index}.qcow2`);

/** What tells this preparation from others of the job: remembered once the overlays are whole, and durable. */
async function prepareAll(preparation: Preparation, launch: Launch): Promise<number> {
  const { clock, workFolder, runFolder, point } = launch;
  for (const name of [workFolder, runFolder]) {
    await launch.making({ kind: 'folder', name });
    await mkdir(name, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
      throw diskError(cause, name);
    });
  }
  // Of a former life that was killed: it holds the overlays, and would write on.
  await endProcess(preparePaths(launch).pidfile, clock);
  const disks: VmDisk[] = [];
  const { accelerator } = await createAccelerationChoice(clock)('auto');
  try {
    for (const index of point.volumes.keys()) disks.push(await makeDisk(launch, index));
    await preparation.prepare(launch, disks, accelerator);
  } finally {
    for (const index of point.volumes.keys()) {
      await endProcess(imageServerPaths(runFolder, index).pidfile, clock);
    }
  }
  for (const { overlayPath: path } of disks) await syncFile(path);
  await nodeDisk.syncDirectory(workFolder);
  const preparedBy = Math.round(clock.wallMs());
  await launch.remember({ preparedBy });
  return preparedBy;
}

const isDrill = ({ kind }: Launch): boolean => kind === 'drill';

async function makeDisk(launch: Launch, index: number): Promise<VmDisk> {
  const { runFolder, folder, clock, point } = launch;
  const { volume, sizeBytes, sectorBytes } = point.volumes[index]!;
  const { pidfile, socketPath } = imageServerPaths(runFolder, index);
  await launch.making({ kind: 'process', name: pidfile });
  // Of a former life that was killed, as its socket is: nobody listens at a name that is taken.
  await endProcess(pidfile, clock);
  await rm(socketPath, { force: true }).catch((cause: unknown) => {
    throw diskError(cause, socketPath);
  });
  const address = await launch.imageAddress(volume);
  const logPath = join(folder, `disk${index}.log`);
  const isLow = isDrill(launch);
  await startImageServer(address, { runFolder, index, sizeBytes, clock, logPath, isLow });
  const path = overlayPath(launch, index);
  const wholeBytes = String(Math.ceil(sizeBytes / 512) * 512);
  await runProgram('qemu-img', ['create', '-q', '-f', 'qcow2', path, wholeBytes]);
  return { socketPath, overlayPath: path, sectorBytes };
}

interface Segment {
  readonly start: number;
  readonly length: number;
  /** In the file; null: zeros. */
  readonly offset: number | null;
}

/** `path`: a qcow2 without a backing file of its own, made here: what is not in it is the point's. */
export async function readOverlay(
  path: string,
  id: string,
  sizeBytes: number,
): Promise<ImageOverlay> {
  const map = await runProgram('qemu-img', ['map', '--output=json', '-f', 'qcow2', path]);
  const segments = (JSON.parse(map) as MapEntry[]).flatMap((entry) => segmentOf(entry, sizeBytes));
  return {
    id,
    changed: extentsOf(segments),
    read: (offset, length) => readSegments(path, segments, offset, length),
  };
}

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly offset?: number;
}

function segmentOf(entry: MapEntry, sizeBytes: number): Segment[] {
  const length = Math.min(entry.length, sizeBytes - entry.start);
  if (!entry.present || length <= 0) return [];
  return [{ start: entry.start, length, offset: entry.zero ? null : entry.offset! }];
}

function extentsOf(segments: readonly Segment[]): { offset: number; length: number }[] {
  const extents: { offset: number; length: number }[] = [];
  for (const { start, length } of segments) {
    const last = extents.at(-1);
    if (last !== undefined && last.offset + last.length === start) last.length += length;
    else extents.push({ offset: start, length });
  }
  return extents;
}

async function readSegments(
  path: string,
  segments: readonly Segment[],
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const end = offset + length;
  const file = await open(path, 'r').catch((cause: unknown) => {
    throw diskError(cause, path);
  });
  try {
    for (const { start, length: size, offset: at } of segments) {
      const from = Math.max(start, offset);
      const until = Math.min(start + size, end);
      if (from >= until || at === null) continue;
      await file.read(bytes, from - offset, until - from, at + from - start);
    }
  } catch (cause) {
    throw diskError(cause, path);
  } finally {
    await file.close();
  }
  return bytes;
}

/** A launcher that knows the options of preparation; `standard`: where `prepare` is not told. */
export function withPreparation(
  launcher: Launcher,
  preparation: Preparation,
  standard: 'auto' | 'none',
): Launcher {
  const rules: Record<string, OptionRule> = {
    ...prepareRules,
    prepare: { kind: 'choice', of: ['auto', 'none'], standard },
  };
  return {
    ...launcher,
    async readOptions(given, kind) {
      const { prepare, agent, ...rest } = given;
      const wanted = checkOptions(rules, { prepare, agent });
      return { ...(await launcher.readOptions(rest, kind)), ...wanted };
    },
    async check(given, point, openImage, kind) {
      const { prepare, agent, ...rest } = given;
      const wanted = checkOptions(rules, { prepare, agent });
      const options = await launcher.check(rest, point, openImage, kind);
      return { ...options, ...wanted, ...(await preparation.check(given, wanted)) };
    },
  };
}
