/** A directory that is read while a service seals, folds and collects in it: nothing seems to be missing. */
import { describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { silentLog } from '../../src/base/log.ts';
import { openRepository } from '../../src/store/offline.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { keys } from './support/key-mode.ts';
import { readsAs, StoreLife } from './support/store-life.ts';

describe('reading beside a running service', () => {
  let disk: FaultyDisk;
  let life: StoreLife;

  /** Runs `between` once, when the n-th listing of folders or opening of files is made. */
  function interrupted(n: number, between: () => Promise<void>): Disk {
    const real = disk.mount();
    let calls = 0;
    const count = async () => {
      calls += 1;
      if (calls === n) await between();
    };
    return {
      ...real,
      async list(path) {
        await count();
        return real.list(path);
      },
      async open(path, mode) {
        await count();
        return real.open(path, mode);
      },
      async readFile(path) {
        await count();
        return real.readFile(path);
      },
    };
  }

  it('finds every point whole at whatever instant points are sealed and maps folded', async () => {
    let met = 0;
    for (let n = 1; n < 400; n += 2) {
      disk = new FaultyDisk();
      life = new StoreLife(disk, 5);
      await life.open();
      const ingest = await life.connect();
      for (let i = 0; i < 3; i += 1) await life.writeAndCommit(ingest);
      await life.store!.seal(life.acknowledged[1]!.id);
      await life.writeAndCommit(ingest);
      const [dropped, ...kept] = [...life.acknowledged];
      let isDone = false;
      const slow = interrupted(n, async () => {
        isDone = true;
        await life.writeAndCommit(ingest, 20);
        await life.store!.applyRetention({ drop: [dropped!.id, kept[0]!.id] });
        await life.store!.collect();
        await life.store!.check({ readData: false });
      });
      const offline = await openRepository('/data', silentLog, slow, keys);
      const listed = new Set((await offline.points({})).map(({ id }) => id));
      for (const point of kept.slice(1)) {
        expect(listed.has(point.id), `call ${n}`).toBe(true);
        expect(await readsAs(offline as never, point), `call ${n}`).toBe(true);
      }
      const { findings } = await offline.check({ readData: n % 4 === 1 });
      expect(
        findings.filter(({ kind }) => kind !== 'stale-index'),
        `call ${n}`,
      ).toEqual([]);
      await offline.close();
      await life.store!.close();
      if (!isDone) break;
      met = n;
    }
    expect(met).toBeGreaterThan(20);
  });
});
