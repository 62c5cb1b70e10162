/** Points that are asked about stay while they are, and a while longer. */
import { expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { PointsInUse } from '../../src/staging/points-in-use.ts';
import type { ImageReader } from '../../src/store/types.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';

const MINUTE_MS = 60_000;

function world() {
  const clock = new VirtualClock();
  const open: string[] = [];
  let opened = 0;
  const points = new PointsInUse(clock, {
    async openImage(point) {
      if (point === 'none') throw new UnderstudyError('ERR_POINT_NOT_FOUND', 'no point');
      open.push(point);
      opened += 1;
      const close = () => void open.splice(open.indexOf(point), 1);
      return { close } as unknown as ImageReader;
    },
  });
  return { clock, open, points, opened: () => opened };
}

it('a point is held once, until nobody has asked about it for a while', async () => {
  const { clock, open, points, opened } = world();
  await Promise.all([points.touch('p1', 'a'), points.touch('p1', 'a'), points.touch('p2', 'a')]);
  expect([...open].sort()).toEqual(['p1', 'p2']);
  expect(opened()).toBe(2);
  await clock.runUntil(10 * MINUTE_MS);
  await points.touch('p1', 'a');
  await clock.runUntil(20 * MINUTE_MS);
  expect(open).toEqual(['p1']);
  await clock.runUntil(30 * MINUTE_MS);
  expect(open).toEqual([]);
  expect(points.count).toBe(0);
});

it('one that is gone is told, and asked for anew; all are let go at the end', async () => {
  const { open, points } = world();
  const gone = points.touch('none', 'a');
  await expect(gone).rejects.toMatchObject({ code: 'ERR_POINT_NOT_FOUND' });
  expect(points.count).toBe(0);
  await points.touch('p1', 'a');
  await points.stop();
  await new Promise((resolve) => setImmediate(resolve));
  expect(open).toEqual([]);
});
