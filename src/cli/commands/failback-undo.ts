/** `understudy failback undo`: a disk as it was before `failback run` wrote to it. */
import { nodeDisk, openRawDisk } from '../../base/node-disk.ts';
import { formatSize } from '../../base/units.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import { putBack } from '../../recovery/failback/put-back.ts';
import { checkTarget } from '../../recovery/failback/target-check.ts';
import { targetFacts } from '../../recovery/failback/target-facts.ts';
import { readUndoFile } from '../../recovery/failback/undo-file.ts';
import type { CommandSpec } from '../command.ts';
import { replicatedHere } from '../failback-targets.ts';
import { jsonOption, yesOption } from '../operator.ts';

export const undoFailback: CommandSpec = {
  path: ['failback', 'undo'],
  summary: 'Put a disk back as it was before failback run --undo wrote to it',
  positionals: [{ name: 'file', describe: 'The file that failback run --undo has written' }],
  options: [
    { name: 'to', type: 'text', value: 'DEV', describe: 'The disk', required: true },
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
    const undo = await readUndoFile(nodeDisk, settings.text('file'));
    try {
      const { server, volume, sizeBytes, target: before, time } = undo.title;
      const facts = targetFacts(path);
      const sectorBytes = facts.sectorBytes || 512;
      checkTarget(facts, { volume, sizeBytes, sectorBytes }, await replicatedHere());
      if (!settings.flag('yes')) {
        const what = `${volume} of ${server}, then ${before}, as it was at ${time}`;
        await context.confirm(`Overwrite ${path} with ${what}?`);
      }
      const target = await openRawDisk(facts.realPath, facts.kind === 'file' ? 'file' : 'block');
      const progress = context.progress('undo');
      try {
        const report = await putBack(undo, target, {
          stop: context.stop,
          onChunk: (chunks) => progress.update(chunks * CHUNK_BYTES, sizeBytes),
        });
        progress.finish();
        const { chunks, writtenBytes, tornBytes } = report;
        if (tornBytes > 0) {
          context.note(
            `${tornBytes} bytes at the end were of a write that had not begun: left out`,
          );
        }
        context.print(
          settings.flag('json')
            ? JSON.stringify({ target: path, ...report, verified: true }, null, 2)
            : `${path}: ${chunks} chunks (${formatSize(writtenBytes)}) put back and verified`,
        );
      } finally {
        await target.close();
      }
    } finally {
      await undo.close();
    }
    return 0;
  },
};
