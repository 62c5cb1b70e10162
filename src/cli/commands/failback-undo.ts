/** `understudy failback undo`: a disk as it was before `failback run` wrote to it. */
import type { DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import { formatSize } from '../../base/units.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import { type PutBackReport, putBack, refuseAgain } from '../../recovery/failback/put-back.ts';
import { checkTarget } from '../../recovery/failback/target-check.ts';
import { targetFacts } from '../../recovery/failback/target-facts.ts';
import { type KeptTitle, type OpenUndo, readUndoFile } from '../../recovery/failback/undo-file.ts';
import type { CommandContext, CommandSpec } from '../command.ts';
import { openHome, replicatedHere } from '../failback-targets.ts';
import { jsonOption, yesOption } from '../operator.ts';
import type { Settings } from '../settings.ts';

/** What the file says of itself. ERR_UNDO_FILE where there is nothing to put back. */
async function look(settings: Settings): Promise<KeptTitle> {
  const undo = await readUndoFile(nodeDisk, settings.text('file'));
  try {
    refuseAgain(undo, settings.flag('again'));
    return undo.title;
  } finally {
    await undo.close();
  }
}

async function put(
  context: CommandContext,
  undo: OpenUndo,
  target: DiskFile,
  { to, isAgain, sizeBytes }: { to: string; isAgain: boolean; sizeBytes: number },
): Promise<PutBackReport> {
  const progress = context.progress('undo');
  const report = await putBack(undo, target, {
    ...{ to, isAgain, stop: context.stop },
    now: () => new Date(context.clock.wallMs()).toISOString(),
    onChunk: (chunks) => progress.update(chunks * CHUNK_BYTES, sizeBytes),
  });
  progress.finish();
  return report;
}

function tell(context: CommandContext, settings: Settings, report: PutBackReport): void {
  const { chunks, writtenBytes, tornBytes } = report;
  const path = settings.text('to');
  if (tornBytes > 0) {
    context.note(`${tornBytes} bytes at the end were of a write that had not begun: left out`);
  }
  context.print(
    settings.flag('json')
      ? JSON.stringify({ target: path, ...report, verified: true }, null, 2)
      : `${path}: ${chunks} chunks (${formatSize(writtenBytes)}) put back and verified`,
  );
}

export const undoFailback: CommandSpec = {
  path: ['failback', 'undo'],
  summary: 'Put a disk back as it was before failback run --undo wrote to it',
  positionals: [{ name: 'file', describe: 'The file that failback run --undo has written' }],
  options: [
    { name: 'to', type: 'text', value: 'DEV', describe: 'The disk', required: true },
    {
      name: 'again',
      type: 'flag',
      describe: 'Also where it was put back already: what was written there since is lost',
    },
    yesOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy failback undo /mnt/usb/web1.undo --to /dev/sda',
      does: 'the failback was given up: the original goes on with what it had, its unreplicated tail too',
    },
  ],
  async run(context, settings) {
    const path = settings.text('to');
    const isAgain = settings.flag('again');
    const { server, volume, sizeBytes, target: before, time, round } = await look(settings);
    const facts = targetFacts(path);
    const sectorBytes = facts.sectorBytes || 512;
    checkTarget(facts, { volume, sizeBytes, sectorBytes }, await replicatedHere());
    if (!settings.flag('yes')) {
      const what = `${volume} of ${server}, then ${before}, as it was at ${time}`;
      await context.confirm(`Overwrite ${path} with ${what}?`);
    }
    const target = await openHome(facts);
    try {
      // What was looked at may have been filled by a run until now, or begun anew.
      const undo = await readUndoFile(nodeDisk, settings.text('file'));
      try {
        if (undo.title.time !== time || undo.title.round !== round) {
          const message = `${settings.text('file')} was begun anew meanwhile: look again`;
          throw new UnderstudyError('ERR_UNDO_FILE', message);
        }
        const report = await put(context, undo, target, { to: path, isAgain, sizeBytes });
        tell(context, settings, report);
      } finally {
        await undo.close();
      }
    } finally {
      await target.close();
    }
    return 0;
  },
};
