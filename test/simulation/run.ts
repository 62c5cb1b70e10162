/**
 * Runs worlds: `node test/simulation/run.ts [--seeds N] [--from SEED] [--verbose]`. The first breach ends
 * the run and prints the command that shows it again.
 */
import { parseArgs } from 'node:util';
import { World } from './world.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
});
const first = Number(values.from);
const end = first + Number(values.seeds);
const began = performance.now();
let points = 0;
let images = 0;
for (let seed = first; seed < end; seed += 1) {
  try {
    const report = await new World({
      seed,
      ...(values.verbose ? { onLog: console.log } : {}),
    }).run();
    points += report.points;
    images += report.imagesChecked;
    if (values.verbose) console.log(JSON.stringify(report));
  } catch (error) {
    console.error(error);
    console.error(`\nreplay: node test/simulation/run.ts --from ${seed} --seeds 1 --verbose`);
    process.exit(1);
  }
}
const seconds = ((performance.now() - began) / 1000).toFixed(1);
console.log(`${end - first} worlds, ${points} points, ${images} images checked, ${seconds} s`);
