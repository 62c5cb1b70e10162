/**
 * Copies that are cut short: the power of the destination goes at each of its calls, in a first copy, an
 * incremental one, retention and collection. Afterwards every point that is there reads right and a check
 * finds nothing, and the next copy brings what is missing.
 */
import { describe, expect, it } from 'vitest';
import { Random } from '../simulation/random.ts';
import { CopyWorld, expectWhole } from './support/copy-world.ts';
import { FaultyDisk } from './support/faulty-disk.ts';

/** One call in so many is tried: all of them with COPY_CRASH_STRIDE=1. */
const STRIDE = Number(process.env.COPY_CRASH_STRIDE ?? 23);
const keep = [{ everyMs: 3000, forMs: 1e13 }];

/** Copies of every kind, one after the other. */
async function copyAll(world: CopyWorld, far: FaultyDisk, name: string): Promise<void> {
  await world.copy({ newest: 2 }, far, name);
  await world.copy({ verify: 'new' }, far, name);
  await world.copy({ keep }, far, name);
  await world.copy({ keep }, far, name);
}

async function cutAt(world: CopyWorld, call: number): Promise<void> {
  const { acknowledged } = world.life;
  const far = new FaultyDisk();
  const name = `far ${call}`;
  far.cutPowerAt(call);
  // Chance makes the same copies take some calls more or fewer.
  const isDone = await copyAll(world, far, name).then(
    () => far.calls < call,
    () => false,
  );
  if (isDone) return;
  expect(far.calls).toBeGreaterThanOrEqual(call);
  const cutIn = far.lastCall;
  const random = new Random(call);
  try {
    if (random.chance(0.3)) far.reopen();
    else far.restart(random);
    if (far.files().some((path) => path.endsWith('/format.json'))) {
      await expectWhole(far, acknowledged);
    }
    await world.copy({}, far, name);
    expect(await expectWhole(far, acknowledged)).toHaveLength(acknowledged.length);
    // What was named is durable: the power may go once more.
    far.restart(random);
    expect(await expectWhole(far, acknowledged)).toHaveLength(acknowledged.length);
  } catch (error) {
    throw new Error(`power cut at call ${call} of the destination (${cutIn})`, { cause: error });
  }
}

describe('a destination whose power goes', () => {
  it('at any call has whole points only, and the next copy finishes', async () => {
    const world = new CopyWorld(31);
    await world.commit(7);
    const counted = new FaultyDisk();
    await copyAll(world, counted, 'counted');
    expect(counted.calls).toBeGreaterThan(150);
    for (let call = 1; call < counted.calls; call += STRIDE) await cutAt(world, call);
    await world.life.store!.close();
  });
});
