/**
 * Repair of a repository in a bucket, in place: whatever object is damaged, a copy mends it, and a check of
 * every byte is clean. A bundle that cannot be read is damage and no rollback: the service goes on beside it,
 * drops nothing, and has the agents scan again; a repair brings back what it held.
 */
import { describe, expect, it } from 'vitest';
import { createLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import type { StoreSettings } from '../../src/store/core.ts';
import { repairRepository } from '../../src/store/repair/repair.ts';
import type { Finding } from '../../src/store/types.ts';
import { BUCKET, BucketLife } from './support/bucket-life.ts';
import { COPY, placeOn } from './support/copy-world.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { keys, withKeys } from './support/key-mode.ts';
import { readableOf, tinySettings } from './support/store-life.ts';

const lines: string[] = [];
const log = createLog({ sink: (line) => lines.push(line), level: 'info' });
const ignored = () => undefined;

/** As the one in SQLite, it knows of which repository it is. */
class KnownCatalog extends MemoryCatalog {
  private id: string | null = null;

  override async open(): Promise<string | null> {
    return this.id;
  }

  override async close(): Promise<void> {
    return;
  }

  override async adopt(id = ''): Promise<void> {
    this.id = id;
    await super.adopt();
  }
}

/** Sealed points in a bucket, in bundles, with a copy in a directory; the store is closed. */
class World {
  readonly life = new BucketLife(new FaultyDisk(), 5, true);
  readonly far = new FaultyDisk();
  readonly catalog = new KnownCatalog();
  readonly settings: Partial<StoreSettings>;

  constructor(settings: Partial<StoreSettings> = tinySettings) {
    this.settings = settings;
  }

  open() {
    const disk = this.life.bucketDisk(undefined, undefined, ignored);
    const onAlone = () => disk.keepListing();
    return this.life.open(this.settings, { catalog: this.catalog, disk, onAlone, log });
  }

  /** `afterwards` come when the copy was made. */
  async live(points = 4, afterwards = 0): Promise<void> {
    const { life } = this;
    const store = await this.open();
    const ingest = await life.connect();
    for (let i = 0; i < points + afterwards; i += 1) {
      if (i === points) await store.copy(placeOn(this.far), {});
      const { id } = await life.writeAndCommit(ingest);
      await store.seal(id);
    }
    await ingest.close();
    if (afterwards === 0) await store.copy(placeOn(this.far), {});
    await store.close();
    life.disk.reopen();
  }

  get bundles(): string[] {
    return [...this.life.objects.held.keys()].filter((name) => name.startsWith('bundles/'));
  }

  flip(name: string, at: number): void {
    this.life.objects.held.get(name)!.bytes[at]! ^= 1;
  }

  async repair(more: { knownPoints?: ReadonlySet<string> } = {}, isDryRun = false, hasCopy = true) {
    const { life, far } = this;
    const local = new FaultyDisk();
    const disk = life.bucketDisk(local.mount(), '/mirror', ignored);
    const place = { disk, repo: BUCKET, objects: life.objects, scratch: '/scratch', ...withKeys };
    return repairRepository({
      ...{ directory: BUCKET, isDryRun, log, keys, ...more },
      place: { ...place, alone: (term, confirm) => disk.keepListing(term, confirm) },
      ...(hasCopy && {
        from: { disk: far.mount(), repo: COPY, objects: null, ...withKeys },
      }),
    });
  }

  async readable(): Promise<string[]> {
    const offline = await this.life.offline(ignored);
    const ids = await readableOf(this.life, offline as never);
    await offline.close();
    return ids;
  }

  get ids(): string[] {
    return this.life.acknowledged.map(({ id }) => id);
  }
}

describe('a repository in a bucket', () => {
  it('is repaired in place, whatever object of it is damaged', async () => {
    const world = new World();
    await world.live();
    const { held } = world.life.objects;
    const sound = new Map([...held].map(([name, object]) => [name, { ...object }]));
    const names = [...held.keys()].filter((name) => !/^(?:format|keys|lease)/.test(name));
    expect(world.bundles.length).toBeGreaterThan(2);
    let clean = 0;
    for (const name of names) {
      for (const part of [0.05, 0.6]) {
        held.clear();
        for (const [each, object] of sound)
          held.set(each, { ...object, bytes: Uint8Array.from(object.bytes) });
        world.flip(name, Math.floor(held.get(name)!.bytes.length * part));
        const plan = await world.repair({}, true);
        const report = await world.repair();
        // A content that only a map needs to which no point needs to go may be nowhere else.
        const isHarmless = ({ kind, points }: Finding) =>
          kind === 'damaged-piece' && points.length === 0;
        const rest = report.after.filter((finding) => !isHarmless(finding));
        expect(rest, `${name} at ${part}`).toEqual([]);
        clean += report.after.length === 0 ? 1 : 0;
        expect(report.before.length, name).toBe(plan.before.length);
        expect(await world.readable(), name).toEqual(world.ids);
        expect((await world.repair()).steps.filter(({ isPossible }) => isPossible)).toEqual([]);
      }
    }
    expect(clean).toBeGreaterThan(names.length);
  });
});

describe('a bucket that keeps its objects for a time', () => {
  it('is repaired as far as that goes, and what is kept is told', async () => {
    const world = new World();
    await world.live();
    const { held, locked } = world.life.objects;
    const sound = new Map([...held].map(([name, object]) => [name, { ...object }]));
    for (const name of held.keys()) if (!/^lease|^bundles.*1.bundle/.test(name)) locked.add(name);
    for (const name of locked) {
      if (/^(?:format|keys)/.test(name)) continue;
      held.clear();
      for (const [each, object] of sound) {
        held.set(each, { ...object, bytes: Uint8Array.from(object.bytes) });
      }
      world.flip(name, Math.floor(held.get(name)!.bytes.length * 0.05));
      const { steps } = await world.repair();
      const kept = steps.filter(({ isPossible }) => !isPossible);
      expect(kept.length, name).toBeGreaterThan(0);
      expect(held.has(name)).toBe(true);
      if (name.startsWith('packs/')) expect(await world.readable(), name).toEqual(world.ids);
    }
  });
});

describe('damage at many places', () => {
  it('is repaired as far as the copy goes: around a content that only a base put together', async () => {
    for (let n = 0, packs = 1; n < packs; n += 1) {
      const world = new World();
      await world.live();
      const { held } = world.life.objects;
      const names = [...held.keys()].filter((name) => name.startsWith('packs/'));
      packs = names.length;
      for (const name of world.bundles) world.flip(name, 20);
      world.flip(names[n]!, Math.floor(held.get(names[n]!)!.bytes.length * 0.05));
      const { after } = await world.repair();
      expect(
        after.flatMap(({ points }) => points),
        names[n],
      ).toEqual([]);
      expect(await world.readable(), names[n]).toEqual(world.ids);
    }
  });
});

describe('a bundle that cannot be read', () => {
  /** The one with the newest point. */
  const newest = ({ bundles, ids, life }: World) => {
    const { held } = life.objects;
    const has = (name: string) => Buffer.from(held.get(name)!.bytes).includes(ids.at(-1)!);
    return bundles.toSorted().filter(has).at(-1)!;
  };

  it('is no rollback: the service goes on, drops nothing, and demands a rescan', async () => {
    const world = new World({ ...tinySettings, baseAfterDeltas: 1000, levelFan: 1000 });
    await world.live();
    world.flip(newest(world), 20);
    const store = await world.open();
    expect(lines.join('\n')).toContain('repo repair --from COPY');
    expect((await store.points({})).map(({ id }) => id).sort()).toEqual(world.ids.sort());
    const plan = await store.planRetention([{ everyMs: 1, forMs: 1 }], 2e12);
    expect(plan.drop).toEqual([]);
    expect(plan.points.every(({ keptBy }) => keptBy.includes('damage'))).toBe(true);
    expect(await store.applyRetention({ drop: world.ids })).toEqual([]);
    const ingest = await store.beginIngest(
      'web',
      world.life.volumes.map(({ description }) => description),
    );
    await expect.poll(() => lines.join('\n')).toContain('a rescan is demanded');
    await ingest.close();
    await store.close();
    world.life.disk.reopen();
    // What it held comes back from the copy, and nothing was accepted as lost.
    const report = await world.repair({ knownPoints: new Set(world.ids) });
    expect(report.after).toEqual([]);
    expect(
      [...world.life.objects.held.keys()].filter((name) => /^damaged/.test(name)),
    ).toHaveLength(1);
    const again = await world.open();
    expect(await readableOf(world.life, again)).toEqual(world.ids);
    expect((await again.check({ readData: true })).findings).toEqual([]);
    await again.close();
  });

  it('stays, where the copy does not have what the catalog says was in it', async () => {
    const world = new World();
    await world.live(3, 1);
    world.flip(newest(world), 20);
    const report = await world.repair({ knownPoints: new Set(world.ids) });
    expect(report.steps.filter(({ isPossible }) => !isPossible)).toMatchObject([
      { action: expect.stringContaining('it stays: 1 points') },
    ]);
    expect(report.after).toHaveLength(1);
    expect(world.life.objects.held.has(newest(world))).toBe(true);
  });

  it('keeps what is damaged besides, and seems to be needed by nobody', async () => {
    const world = new World();
    await world.live();
    const { held } = world.life.objects;
    const bases = [...held.keys()].filter((name) => name.endsWith('4.base'));
    expect(bases).toHaveLength(2);
    world.flip(newest(world), 20);
    for (const base of bases) world.flip(base, 20);
    const { steps } = await world.repair({}, false, false);
    expect(steps.filter(({ isPossible }) => !isPossible).map(({ action }) => action)).toContain(
      'what it holds can be taken from a copy only: give --from',
    );
    expect(bases.filter((name) => held.has(name))).toEqual(bases);
  });

  it('that is gone, with the newest point, is a rollback', async () => {
    const world = new World();
    await world.live();
    world.life.objects.held.delete(newest(world));
    await expect(world.open()).rejects.toMatchObject({ code: 'ERR_REPOSITORY_BEHIND' });
  });
});
