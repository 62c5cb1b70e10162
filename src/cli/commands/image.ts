/** `understudy image export`: one volume at one point, as a file. */
import { mkdtemp, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import { formatDuration, formatSize } from '../../base/units.ts';
import { convertImage, type ImageFormat, imageFormats } from '../../recovery/convert.ts';
import { type ExportReport, exportImage, type ImageSource } from '../../recovery/export.ts';
import type { ApiDigests } from '../../staging/api-types.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import {
  atOptions,
  connect,
  findPoint,
  jsonOption,
  operatorOptions,
  pointChoice,
  volumePath,
  yesOption,
} from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import type { RestClient } from '../rest-client.ts';

/** The bytes of an image as the service gives them, held to one content by its ETag. */
async function serviceSource(
  client: RestClient,
  point: string,
  volume: string,
): Promise<ImageSource> {
  const path = volumePath(point, volume);
  const { sizeBytes, etag } = await client.head(`${path}/image`);
  return {
    sizeBytes,
    digests: (offset) => client.call<ApiDigests>('GET', `${path}/digests`, { query: { offset } }),
    read: (offset, length) => client.range(`${path}/image`, offset, length, etag),
  };
}

export interface ImageTarget {
  readonly out: string;
  readonly format: ImageFormat;
  readonly replace: boolean;
}

/** Writes and verifies; formats other than raw go by way of a raw file beside the result. */
export async function writeImageFile(
  context: CommandContext,
  source: ImageSource,
  target: ImageTarget,
): Promise<ExportReport> {
  const progress = context.progress('image');
  const write = (out: string, replace: boolean) =>
    exportImage(source, {
      disk: nodeDisk,
      out,
      replace,
      stop: context.stop,
      onProgress: (stage, done, total) => progress.update(done, total, stage),
    });
  try {
    if (target.format === 'raw') return await write(target.out, target.replace);
    if (!target.replace && (await nodeDisk.exists(target.out))) {
      throw new UnderstudyError('ERR_EXPORT_EXISTS', `${target.out} exists`, { path: target.out });
    }
    const folder = await mkdtemp(join(dirname(target.out), '.understudy-export-'));
    try {
      const rawPath = join(folder, 'image.raw');
      const report = await write(rawPath, true);
      const converted = join(folder, 'image.converted');
      await convertImage({ rawPath, out: converted, format: target.format, stop: context.stop });
      await nodeDisk.rename(converted, target.out);
      await nodeDisk.syncDirectory(dirname(target.out));
      return report;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  } finally {
    progress.finish();
  }
}

/** What an export says at its end, as text or JSON. */
export function reportExport(
  context: CommandContext,
  done: {
    point: string;
    volume: string;
    target: ImageTarget;
    report: ExportReport;
    tookMs: number;
    isJson: boolean;
  },
): void {
  const { point, volume, target, report, tookMs } = done;
  const { out, format } = target;
  if (done.isJson) {
    context.print(
      JSON.stringify({ point, volume, out, format, ...report, verified: true, tookMs }, null, 2),
    );
    return;
  }
  const size = `${formatSize(report.sizeBytes)}, ${formatSize(report.dataBytes)} of it data`;
  const reused = report.dataBytes - report.fetchedBytes;
  const resumed = reused > 0 ? `, ${formatSize(reused)} were there already` : '';
  context.print(`${out}: ${volume} at ${point}, ${format}, ${size}${resumed}`);
  context.print(`verified against the point, ${formatDuration(tookMs)}`);
}

export const imageOptions: readonly OptionSpec[] = [
  {
    name: 'point',
    type: 'text',
    value: 'ID',
    describe: 'Recovery point, or "latest"',
  },
  ...atOptions,
  {
    name: 'volume',
    type: 'text',
    value: 'V',
    describe: 'Volume, as given to the agent',
    required: true,
  },
  {
    name: 'server',
    type: 'text',
    value: 'NAME',
    describe: 'Whose latest point, where several servers are kept',
  },
  {
    name: 'format',
    type: 'text',
    choices: imageFormats,
    describe: 'Format of the file',
    default: 'raw',
  },
  {
    name: 'out',
    type: 'text',
    value: 'FILE',
    describe: 'File to write; raw images are sparse, and an interrupted one is resumed',
    required: true,
  },
  { ...yesOption, describe: 'Replace FILE if it exists' },
];

const exportCommand: CommandSpec = {
  path: ['image', 'export'],
  summary: 'Write a volume as it was at a recovery point into a file, and verify it',
  options: [...operatorOptions, ...imageOptions, jsonOption],
  examples: [
    {
      line: 'understudy image export --point latest --volume /dev/vdb --out vdb.raw',
      does: 'newest state of a disk',
    },
    {
      line: 'understudy image export --at 10m --volume /dev/vdb --out vdb.raw',
      does: 'as it was ten minutes ago',
    },
    {
      line: 'understudy image export --point ID --volume /dev/vda --format qcow2 --out vda.qcow2',
      does: 'a disk for QEMU',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const volume = settings.text('volume');
    const point = await findPoint(client, { ...pointChoice(settings), volume });
    const target: ImageTarget = {
      out: resolve(settings.text('out')),
      format: settings.text('format') as ImageFormat,
      replace: settings.flag('yes'),
    };
    const startMs = context.clock.monotonicMs();
    const source = await serviceSource(client, point.id, volume);
    const report = await writeImageFile(context, source, target);
    const tookMs = Math.round(context.clock.monotonicMs() - startMs);
    const isJson = settings.flag('json');
    reportExport(context, { point: point.id, volume, target, report, tookMs, isJson });
    return 0;
  },
};

export const imageGroup: CommandGroup = {
  word: 'image',
  summary: 'Images of volumes at recovery points',
  commands: [exportCommand],
};
