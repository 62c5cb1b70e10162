/**
 * format.json of a repository in a bucket, where nothing is written over: what one bit, the keys or the catalog prove
 * is put again (a repair that is cut short leaves it missing), and what nobody can prove is left alone.
 */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { KeyOptions } from '../../src/store/keys/open-vault.ts';
import { openRepositoryIn } from '../../src/store/offline.ts';
import { repairRepository } from '../../src/store/repair/repair.ts';
import { BUCKET, BucketLife } from './support/bucket-life.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { NonceWatch, testMaster } from './support/key-mode.ts';
import { readableOf } from './support/store-life.ts';

const FORMAT = 'format.json';

class World {
  readonly life = new BucketLife(new FaultyDisk(), 5, true);
  readonly keys: KeyOptions | undefined;

  constructor(isEncrypted: boolean) {
    this.keys = isEncrypted ? { master: testMaster, aead: new NonceWatch() } : undefined;
  }

  async live(): Promise<this> {
    await this.life.sealOne(this.keys);
    return this;
  }

  get text(): string {
    return Buffer.from(this.life.objects.held.get(FORMAT)!.bytes).toString();
  }

  set text(text: string) {
    const { held } = this.life.objects;
    held.set(FORMAT, { ...held.get(FORMAT)!, bytes: Buffer.from(text) });
  }

  lose(): void {
    this.life.objects.held.delete(FORMAT);
  }

  private place(keys = this.keys) {
    const disk = this.life.bucketDisk(new FaultyDisk().mount(), '/elsewhere');
    return { disk, repo: BUCKET, objects: this.life.objects, scratch: '/scratch', keys };
  }

  async readable(): Promise<number> {
    const offline = await openRepositoryIn(this.place(), silentLog);
    const ids = await readableOf(this.life, offline as never);
    const { findings } = await offline.check({ readData: true });
    expect(findings).toEqual([]);
    await offline.close();
    return ids.length;
  }

  repair(more: { knownId?: string; isDryRun?: boolean; keys?: undefined } = {}) {
    const keys = 'keys' in more ? undefined : this.keys;
    const place = this.place(keys);
    return repairRepository({
      ...{ directory: BUCKET, isDryRun: false, log: silentLog, keys, ...more },
      place: { ...place, alone: (term, confirm) => place.disk.keepListing(term, confirm) },
    });
  }
}

const damages: readonly [string, (world: World) => void][] = [
  ['is missing', (world) => world.lose()],
  ['is no JSON', (world) => (world.text = world.text.slice(0, 90))],
  ['is something else', (world) => (world.text = world.text.replace('understudy', 'nonsense'))],
];

describe.each([
  ['plain', false],
  ['encrypted', true],
])('of a repository that is %s', (_, isEncrypted) => {
  it('has a bit turned back that changed, whatever it is of', async () => {
    const world = await new World(isEncrypted).live();
    const sound = world.text;
    for (const at of [5, 20, 60, 75, 130, 170, 200, 240]) {
      const bytes = Buffer.from(sound);
      bytes[at]! ^= 1;
      world.text = bytes.toString();
      const report = await world.repair();
      expect(report.before).toHaveLength(1);
      expect(report.after).toEqual([]);
      expect(world.text).toBe(sound);
    }
    expect(await world.readable()).toBe(1);
  });

  it.each(damages)('that %s is put again, as what is known proves', async (_name, damage) => {
    const world = await new World(isEncrypted).live();
    const { id, version, encryption } = JSON.parse(world.text);
    damage(world);
    const before = new Map(world.life.objects.held);
    const knows = isEncrypted ? {} : { knownId: id };
    const plan = await world.repair({ ...knows, isDryRun: true });
    expect(new Map(world.life.objects.held)).toEqual(before);
    expect(plan.steps).toMatchObject([{ isPossible: true }]);
    const report = await world.repair(knows);
    expect(report.after).toEqual([]);
    expect(report.steps).toEqual(plan.steps);
    expect(JSON.parse(world.text)).toMatchObject({ id, version });
    expect(JSON.parse(world.text).encryption).toEqual(encryption);
    expect(await world.readable()).toBe(1);
  });

  it('stays where the bucket keeps it for a time, and that is told', async () => {
    const world = await new World(isEncrypted).live();
    const changed = world.text.replace(
      /"id": "(.)(.)/,
      (_text, a, b) => `"id": "${b === 'e' ? 'd' : 'e'}${a === 'f' ? '0' : 'f'}`,
    );
    world.text = changed;
    world.life.objects.locked.add(FORMAT);
    const report = await world.repair();
    expect(report.steps).toMatchObject([{ isPossible: false }]);
    expect(report.after).toHaveLength(1);
    expect(world.text).toBe(changed);
  });
});

it('of an encrypted repository needs a key', async () => {
  const world = await new World(true).live();
  world.lose();
  await expect(world.repair({ keys: undefined })).rejects.toMatchObject({
    code: 'ERR_KEY_REQUIRED',
  });
  expect(world.life.objects.held.has(FORMAT)).toBe(false);
});

it('that is missing where there is no point is not made', async () => {
  const world = await new World(false).live();
  world.lose();
  const { held } = world.life.objects;
  for (const name of held.keys()) if (/^(?:points|bundles)/.test(name)) held.delete(name);
  await expect(world.repair()).rejects.toMatchObject({ code: 'ERR_DATA_FORMAT' });
  expect(held.has(FORMAT)).toBe(false);
});
