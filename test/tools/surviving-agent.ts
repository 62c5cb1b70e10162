// An agent in little, to be killed: takes over the tracker, cuts for ever, writes what it gets into
// image files and says that it is committed. What is in the files survives it, as staging would.
// usage: surviving-agent.ts INSTANCE DEVICE=IMAGE...
import { openSync, writeSync } from 'node:fs';
import { Replica } from './replica.ts';

const [instance = '', ...pairs] = process.argv.slice(2);
const paths = pairs.map((pair) => pair.split('=')[0]!);
const images = pairs.map((pair) => openSync(pair.split('=')[1]!, 'r+'));

const replica = await Replica.open({ paths, instance, keepsImages: false });
replica.onPiece = (volume, offset, bytes) => {
  writeSync(images[volume]!, bytes, 0, bytes.length, offset);
};
const isFresh = replica.volumes.some((volume) => volume.fresh);
if (isFresh) await replica.readAll();
process.stdout.write(`${JSON.stringify({ isFresh, volumes: replica.volumes })}\n`);

for (let epoch = replica.volumes[0]!.committedEpoch + 1; ; ) {
  const { result } = await replica.cut();
  if (result.outcome !== 'valid') continue;
  paths.forEach((_, volume) => {
    replica.engine.committed(volume, epoch);
  });
  process.stdout.write(`${JSON.stringify({ epoch, timeMs: result.timeMs })}\n`);
  epoch += 1;
}
