/** Parts of a repository's data: what people type, and which packs are read. */
import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { chooseSubset, parseSubset } from '../../src/model/check-subset.ts';
import { openRepository } from '../../src/store/offline.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { StoreLife, tinySettings } from './support/store-life.ts';

describe('a part of the data', () => {
  it.each([
    ['3/7', { kind: 'part', part: 3, of: 7 }],
    ['2.5%', { kind: 'percent', percent: 2.5 }],
    ['100%', { kind: 'percent', percent: 100 }],
    ['10MiB', { kind: 'size', bytes: 10 * 2 ** 20 }],
  ])('is read from %s', (text, subset) => {
    expect(parseSubset(text)).toEqual(subset);
  });

  it.each(['', '0/7', '8/7', '1/0', '0%', '101%', '-1%', '10', '0MiB', 'x', '1/2/3', '1%%'])(
    'is not "%s"',
    (text) => {
      expect(() => parseSubset(text)).toThrow(expect.objectContaining({ code: 'ERR_USAGE' }));
    },
  );

  const random = new Random(3);
  const packs = Array.from({ length: 200 }, (_, i) => ({
    id: Buffer.from(random.bytes(16)).toString('hex'),
    fileBytes: 1000 + i,
  }));
  const next = () => random.next();

  it('is the same packs each time where it is one of M, and all parts together are all packs once', () => {
    const parts = [1, 2, 3, 4, 5, 6, 7].map((part) => ({ kind: 'part', part, of: 7 }) as const);
    const found = parts.flatMap((part) => [...chooseSubset(packs, part, next)]);
    expect(found).toHaveLength(200);
    expect(new Set(found).size).toBe(200);
    for (const part of parts) {
      expect(chooseSubset(packs, part, next)).toEqual(
        chooseSubset([...packs].reverse(), part, next),
      );
    }
  });

  it('is near to the percentage or the size, other packs each time, and never nothing', () => {
    const bytesOf = (ids: ReadonlySet<string>) =>
      packs.reduce((sum, { id, fileBytes }) => sum + (ids.has(id) ? fileBytes : 0), 0);
    const tenth = chooseSubset(packs, { kind: 'percent', percent: 10 }, next);
    expect(bytesOf(tenth) / bytesOf(new Set(packs.map(({ id }) => id)))).toBeCloseTo(0.1, 1);
    expect(chooseSubset(packs, { kind: 'percent', percent: 10 }, next)).not.toEqual(tenth);
    const size = bytesOf(chooseSubset(packs, { kind: 'size', bytes: 50_000 }, next));
    expect(size).toBeGreaterThanOrEqual(50_000);
    expect(size).toBeLessThan(52_000);
    expect(chooseSubset(packs, { kind: 'size', bytes: 1 }, next).size).toBe(1);
    expect(chooseSubset(packs, { kind: 'percent', percent: 100 }, next).size).toBe(200);
    expect(chooseSubset([], { kind: 'percent', percent: 100 }, next).size).toBe(0);
  });
});

describe('a check of a part', () => {
  let disk: FaultyDisk;
  let life: StoreLife;
  beforeEach(async () => {
    disk = new FaultyDisk();
    life = new StoreLife(disk, 5);
    await life.open({ ...tinySettings, smallPackBytes: 0 });
    const ingest = await life.connect();
    for (let i = 0; i < 6; i += 1) {
      await life.store!.seal((await life.writeAndCommit(ingest)).id);
    }
    await life.store!.close();
    disk.reopen();
  });

  it('finds damage in the part that has it, and reads every byte once over all parts', async () => {
    const [path] = disk.files('/data/repo/packs');
    disk.flip(path!, 130);
    const repository = await openRepository('/data', silentLog, disk.mount());
    const whole = await repository.check({ readData: true });
    expect(whole.findings.length).toBeGreaterThan(0);
    const parts = [];
    for (const part of [1, 2, 3, 4]) {
      const subset = { kind: 'part', part, of: 4 } as const;
      // Anew: what one has found it remembers, and tells again.
      const other = await openRepository('/data', silentLog, disk.mount());
      parts.push(await other.check({ readData: true, subset }));
      await other.close();
    }
    expect(parts.reduce((sum, { bytesRead }) => sum + bytesRead, 0)).toBe(whole.bytesRead);
    expect(parts.filter(({ findings }) => findings.length > 0)).toHaveLength(1);
    expect(parts.flatMap(({ findings }) => findings)).toEqual(whole.findings);
    await repository.close();
  });
});
