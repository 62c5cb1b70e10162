/** The disks that a failback writes to: `VOLUME=DEV` of the command line, checked and opened. */
import { readdirSync, realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { DiskFile } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { nodeDisk, openRawDisk } from '../base/node-disk.ts';
import { formatSize } from '../base/units.ts';
import { checkTarget } from '../recovery/failback/target-check.ts';
import { type TargetFacts, targetFacts } from '../recovery/failback/target-facts.ts';
import { UndoFile, type UndoTitle } from '../recovery/failback/undo-file.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import type { Settings } from './settings.ts';

export interface HomeTarget {
  readonly volume: string;
  readonly path: string;
  readonly facts: TargetFacts;
  readonly sizeBytes: number;
  readonly undoPath: string | null;
}

/** --map VOLUME=DEV ..., or --volume VOLUME --to DEV. ERR_USAGE. */
export function mapsOf(settings: Settings): { volume: string; path: string }[] {
  const volume = settings.optionalText('volume');
  const to = settings.optionalText('to');
  if ((volume === undefined) !== (to === undefined)) {
    throw new UnderstudyError('ERR_USAGE', '--volume and --to belong together');
  }
  const maps = settings.list('map').map((text) => {
    const at = text.lastIndexOf('=');
    if (at > 0 && at < text.length - 1) {
      return { volume: text.slice(0, at), path: text.slice(at + 1) };
    }
    throw new UnderstudyError('ERR_USAGE', `--map: "${text}" is not VOLUME=DEV`);
  });
  if (volume !== undefined) maps.push({ volume, path: to! });
  if (maps.length === 0) {
    throw new UnderstudyError('ERR_USAGE', 'which volume to which disk? Give --map VOLUME=DEV');
  }
  for (const key of ['volume', 'path'] as const) {
    const names = maps.map((map) => map[key]);
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice !== undefined) throw new UnderstudyError('ERR_USAGE', `${twice} is named twice`);
  }
  return maps;
}

/** Real paths of all that agents on this machine replicate. */
export async function replicatedHere(): Promise<string[]> {
  const { DEFAULT_RUN_DIRECTORY, readStatus } = await import('../agent/status-socket.ts');
  const paths: string[] = [];
  for (const name of namesIn(DEFAULT_RUN_DIRECTORY)) {
    if (!name.endsWith('.sock')) continue;
    // A socket that nobody answers on is an agent that is gone.
    const status = await readStatus(DEFAULT_RUN_DIRECTORY, name.slice(0, -'.sock'.length)).catch(
      () => null,
    );
    for (const { path, volume } of status?.volumes ?? []) paths.push(realPathOf(path ?? volume));
  }
  return paths;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** ERR_VOLUME_NOT_FOUND, ERR_FAILBACK_TARGET, ERR_USAGE: before anything is opened. */
export async function chooseTargets(
  context: CommandContext,
  settings: Settings,
  point: ListedPoint,
): Promise<HomeTarget[]> {
  const maps = mapsOf(settings);
  const undo = settings.optionalText('undo');
  const replicated = await replicatedHere();
  const held = point.volumes.map(({ volume }) => volume).join(', ');
  const targets = maps.map(({ volume, path }, i): HomeTarget => {
    const wanted = point.volumes.find((each) => each.volume === volume);
    if (wanted === undefined) {
      const message = `point ${point.id} has no volume ${volume}; it holds ${held}`;
      throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', message);
    }
    const facts = targetFacts(path);
    checkTarget(facts, wanted, replicated);
    const file = maps.length === 1 ? undo : undo && `${undo}.${i + 1}`;
    const undoPath = file === undefined ? null : resolve(file);
    return { volume, path, facts, sizeBytes: wanted.sizeBytes, undoPath };
  });
  for (const { volume, path, facts, sizeBytes } of targets) {
    if (facts.sizeBytes === sizeBytes) continue;
    const more = formatSize(facts.sizeBytes - sizeBytes);
    context.note(`${path} is larger than ${volume} by ${more}: the rest stays as it is`);
  }
  return targets;
}

export interface OpenTarget extends HomeTarget {
  readonly file: DiskFile;
  readonly undo: UndoFile | null;
  close(): Promise<void>;
}

/** Nothing else may have the disk, or the file that stands for one, from now on. ERR_FAILBACK_TARGET. */
export async function openHome({ path, realPath, kind }: TargetFacts): Promise<DiskFile> {
  try {
    return await openRawDisk(realPath, kind === 'file' ? 'file' : 'block');
  } catch (error) {
    if (!(error instanceof UnderstudyError) || error.context.errno !== 'EBUSY') throw error;
    const what =
      kind === 'file' ? 'another failback' : 'mounted, swap, in an array, or another failback';
    const message = `${path}: it is in use (${what} run or undo)`;
    throw new UnderstudyError('ERR_FAILBACK_TARGET', message, { path }, error);
  }
}

/** ERR_FAILBACK_TARGET, ERR_UNDO_FILE. */
export async function openTarget(
  target: HomeTarget,
  { server, cause, time }: Pick<UndoTitle, 'server' | 'cause' | 'time'>,
): Promise<OpenTarget> {
  const { facts, volume, path, undoPath } = target;
  const file = await openHome(facts);
  try {
    const title = { server, volume, target: path, sizeBytes: facts.sizeBytes, cause, time };
    const undo =
      undoPath === null ? null : await UndoFile.open(nodeDisk, undoPath, dirname(undoPath), title);
    return {
      ...{ ...target, file, undo },
      async close() {
        await undo?.close();
        await file.close();
      },
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
