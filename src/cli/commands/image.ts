/** `understudy image export`: one volume at one point, as a file. */
import { mkdtemp, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { nodeDisk } from '../../base/node-disk.ts';
import { formatDuration, formatSize } from '../../base/units.ts';
import {
  checkFormat,
  convertImage,
  type ImageFormat,
  imageFormats,
} from '../../recovery/convert.ts';
import {
  type ExportReport,
  type ExportStage,
  exportImage,
  type ImageSource,
} from '../../recovery/export.ts';
import { exportGcp } from '../../recovery/gcp.ts';
import type { ApiDigests } from '../../staging/api-types.ts';
import type { ListedPoint } from '../../store/types.ts';
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
import { checkOut } from '../out-file.ts';
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

/** Writes and verifies. Throws ERR_EXPORT_REFUSED, what `checkOut` and the making throw. */
export async function writeImageFile(
  context: CommandContext,
  source: ImageSource,
  target: ImageTarget,
): Promise<ExportReport> {
  const { out, format, replace } = target;
  checkOut(out, replace);
  checkFormat(format, source.sizeBytes);
  const progress = context.progress('image');
  const onProgress = (stage: ExportStage, done: number, total: number) =>
    progress.update(done, total, stage);
  const options = { disk: nodeDisk, stop: context.stop, onProgress };
  try {
    if (format === 'raw') return await exportImage(source, { ...options, out, replace });
    return await throughFolder(out, async (folder) => {
      const made = join(folder, 'image.made');
      if (format === 'gcp') {
        const timeMs = context.clock.wallMs();
        return { made, report: await exportGcp(source, { ...options, out: made, timeMs }) };
      }
      const rawPath = join(folder, 'image.raw');
      const report = await exportImage(source, { ...options, out: rawPath, replace: true });
      const { sizeBytes } = report;
      const diskBytes = await convertImage({ ...options, rawPath, sizeBytes, out: made, format });
      return { made, report: { ...report, diskBytes } };
    });
  } finally {
    progress.finish();
  }
}

/** What was made in a folder beside `out` gets that name; the folder goes, whatever happens. */
async function throughFolder(
  out: string,
  make: (folder: string) => Promise<{ made: string; report: ExportReport }>,
): Promise<ExportReport> {
  const folder = await mkdtemp(join(dirname(out), '.understudy-export-'));
  try {
    const { made, report } = await make(folder);
    await nodeDisk.rename(made, out);
    await nodeDisk.syncDirectory(dirname(out));
    return report;
  } finally {
    await rm(folder, { recursive: true, force: true });
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
  const { sizeBytes, diskBytes } = report;
  const rounded = diskBytes > sizeBytes ? ` (a disk of ${formatSize(diskBytes)})` : '';
  const size = `${formatSize(sizeBytes)}${rounded}, ${formatSize(report.dataBytes)} of it data`;
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
    describe:
      'Format of the file: vhd is fixed and in whole MiB, for Azure; gcp a tar.gz of disk.raw in whole GiB',
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

/** The importing cloud does not refuse it, but finds no partition table. */
function noteSectors(
  context: CommandContext,
  { volumes }: ListedPoint,
  { format }: ImageTarget,
  name: string,
): void {
  const sectorBytes = volumes.find(({ volume }) => volume === name)?.sectorBytes ?? 512;
  if (sectorBytes === 512 || (format !== 'vhd' && format !== 'gcp')) return;
  context.note(
    `the source's sectors have ${sectorBytes} bytes: with the 512 of a cloud its partition table is not found`,
  );
}

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
    {
      line: 'understudy image export --point ID --volume /dev/vda --format gcp --out vda.tar.gz',
      does: 'an image that Google Compute Engine imports',
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
    noteSectors(context, point, target, volume);
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
