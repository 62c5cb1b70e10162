/**
 * The target `export`: every volume of a point as a file on the staging machine, in a folder of the job's
 * own, verified against the point. An interrupted raw image is gone on with after a restart.
 */
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { diskError, nodeDisk } from '../base/node-disk.ts';
import { formatSize } from '../base/units.ts';
import type { ListedPoint } from '../store/types.ts';
import { checkFormat, convertImage, type ImageFormat, imageFormats } from './convert.ts';
import { type ExportReport, type ExportStage, exportImage, imageSourceOf } from './export.ts';
import { exportGcp } from './gcp.ts';
import type { BlockImage } from './image-overlay.ts';
import { type ImageOverlay, overlaid } from './image-overlay.ts';
import { checkOptions } from './launch-options.ts';
import type { Launch, LaunchEnd, Launcher, LaunchOptions } from './launcher.ts';
import { removeMade } from './made.ts';
import type { Preparation } from './prepare/preparation.ts';
import { type PrepareImages, prepareImages, withPreparation } from './prepare/prepared-images.ts';
import type { LaunchKind } from './runner.ts';

const rules = {
  format: { kind: 'choice', of: imageFormats, standard: 'raw' },
} as const;

/** "0-dev-vda.raw": the number keeps two apart whose names differ by signs alone. */
export function exportName(index: number, volume: string, format: string): string {
  const plain = volume.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^-|-$/g, '');
  return `${index}-${plain.slice(-80)}.${format === 'gcp' ? 'tar.gz' : format}`;
}

async function exportVolume(
  launch: Launch,
  index: number,
  overlay: ImageOverlay | undefined,
): Promise<string> {
  const { volume } = launch.point.volumes[index]!;
  const format = launch.options.format as ImageFormat;
  const out = join(launch.productFolder, exportName(index, volume, format));
  if (await nodeDisk.exists(out)) return out; // it has its name only when it is whole and verified
  const image = await launch.openImage(volume);
  try {
    const prepared = overlay === undefined ? image : overlaid(image, overlay);
    const { dataBytes } = await writeFormat(launch, prepared, { out, format });
    launch.say(`${volume}: ${formatSize(image.sizeBytes)}, ${formatSize(dataBytes)} of it data`);
  } finally {
    image.close();
  }
  return out;
}

/** Verified before it gets its name; formats other than raw and gcp go by way of a raw file beside it. */
async function writeFormat(
  launch: Launch,
  image: BlockImage,
  { out, format }: { out: string; format: ImageFormat },
): Promise<ExportReport> {
  const source = imageSourceOf(image);
  const stop = AbortSignal.any([launch.stop, launch.leave]);
  const onProgress = (stage: ExportStage, done: number, total: number) => {
    launch.progress(stage === 'writing' ? done : total, total);
  };
  const options = { disk: nodeDisk, stop, onProgress };
  if (format === 'raw') return exportImage(source, { ...options, out, replace: true });
  const made = `${out}.made`;
  if (format === 'gcp') {
    if (await nodeDisk.exists(made)) await nodeDisk.remove(made); // an interrupted life's
    const report = await exportGcp(source, {
      ...{ ...options, out: made, timeMs: launch.clock.wallMs() },
    });
    await named(made, out);
    return report;
  }
  const rawPath = `${out}.raw`;
  const report = await exportImage(source, { ...options, out: rawPath, replace: true });
  await launch.phase('converting');
  const { sizeBytes } = report;
  await convertImage({ ...options, rawPath, sizeBytes, out: made, format });
  await named(made, out);
  await nodeDisk.remove(rawPath);
  return report;
}

async function named(made: string, out: string): Promise<void> {
  await nodeDisk.rename(made, out);
  await nodeDisk.syncDirectory(dirname(out));
}

async function run(launch: Launch, prepare: PrepareImages): Promise<LaunchEnd> {
  const { productFolder, point } = launch;
  await launch.making({ kind: 'folder', name: productFolder, isProduct: true });
  await mkdir(productFolder, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw diskError(cause, productFolder);
  });
  const files: Record<string, string> = {};
  let overlays: ReadonlyMap<string, ImageOverlay>;
  try {
    overlays = await prepare(launch);
  } catch (error) {
    if (launch.leave.aborted) return 'left';
    throw error;
  }
  for (const [index, { volume }] of point.volumes.entries()) {
    try {
      await launch.phase(`writing ${volume}`);
      files[volume] = await exportVolume(launch, index, overlays.get(volume));
    } catch (error) {
      if (launch.leave.aborted) return 'left';
      throw error;
    }
  }
  await launch.up(files);
  return 'done';
}

async function readOptions(
  given: Readonly<Record<string, unknown>>,
  kind: LaunchKind,
): Promise<LaunchOptions> {
  if (kind === 'failover') {
    const message = 'a failover runs; files are made by drill start --target export';
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', message);
  }
  return checkOptions(rules, given);
}

async function check(
  given: Readonly<Record<string, unknown>>,
  { volumes }: ListedPoint,
  _openImage: unknown,
  kind: LaunchKind,
): Promise<LaunchOptions> {
  const options = await readOptions(given, kind);
  for (const { sizeBytes } of volumes) checkFormat(options.format as ImageFormat, sizeBytes);
  return options;
}

/** Without `preparation` the files are what the point holds. */
export function createExportLauncher(preparation: Preparation | null = null): Launcher {
  const prepare = preparation === null ? async () => new Map() : prepareImages(preparation);
  const launcher: Launcher = {
    target: 'export',
    readOptions,
    check,
    run: (launch) => run(launch, prepare),
    clean: (made) => removeMade(made, systemClock),
  };
  // A copy is exact unless something else was asked for.
  return preparation === null ? launcher : withPreparation(launcher, preparation, 'none');
}
