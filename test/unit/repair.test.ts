/**
 * Repair of every kind of damage in test/fixtures/damaged, from a true copy and without one: afterwards a
 * check is clean and every point reads as it did; what nobody has is told and left alone.
 */
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { openRepository } from '../../src/store/offline.ts';
import { repairRepository } from '../../src/store/repair/repair.ts';
import { kinds } from '../tools/damage-kinds.ts';
import { fixtures, type Verdict } from '../tools/damage-verdict.ts';

const scratch = mkdtempSync(join(tmpdir(), 'understudy-repair-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
let copies = 0;
function copyOf(kind: string): string {
  copies += 1;
  const folder = join(scratch, `${copies}-${kind}`);
  cpSync(join(fixtures, kind), folder, { recursive: true });
  return folder;
}

const readJson = <T>(name: string): T =>
  JSON.parse(readFileSync(join(fixtures, `${name}.json`), 'utf8')) as T;
const points = readJson<{ id: string; volumes: Record<string, string> }[]>('points');
const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function readable(folder: string): Promise<string[]> {
  const repository = await openRepository(folder, silentLog);
  const right: string[] = [];
  for (const { id, volumes } of points) {
    try {
      for (const [volume, digest] of Object.entries(volumes)) {
        const image = await repository.openImage(id, volume);
        expect(digestOf(await image.read(0, image.sizeBytes))).toBe(digest);
        image.close();
      }
      right.push(id);
    } catch (error) {
      if ((error as { code?: string }).code === undefined) throw error;
    }
  }
  await repository.close();
  return right;
}

const all = points.map(({ id }) => id);
const bytesOf = (folder: string): string =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => `${path.slice(folder.length)} ${digestOf(readFileSync(path))}`)
    .join('\n');

const damagedKinds = Object.keys(kinds).filter(
  (kind) => !/^(sound|format|catalog|point-missing)/.test(kind),
);

describe('repair from a true copy', () => {
  it.each(damagedKinds)('%s: is clean afterwards, and every point reads right', async (kind) => {
    const directory = copyOf(kind);
    const from = copyOf('sound');
    const untouched = bytesOf(from);
    const before = bytesOf(directory);
    const expected = readJson<Verdict>(kind);
    const plan = await repairRepository({ directory, from, isDryRun: true, log: silentLog });
    expect(bytesOf(directory)).toBe(before);
    expect(plan.before).toHaveLength(expected.findings.length);
    expect(plan.steps.length > 0).toBe(expected.findings.length > 0);
    expect(plan.steps.filter(({ isPossible }) => !isPossible)).toEqual([]);
    const report = await repairRepository({ directory, from, isDryRun: false, log: silentLog });
    expect(report.after).toEqual([]);
    expect(report.before).toEqual(plan.before);
    expect(await readable(directory)).toEqual(all);
    expect(bytesOf(from)).toBe(untouched);
    const again = await repairRepository({ directory, from, isDryRun: false, log: silentLog });
    expect(again.steps).toEqual([]);
  });
});

describe('repair without another repository', () => {
  it.each(damagedKinds)('%s: no point is lost that could be read', async (kind) => {
    const directory = copyOf(kind);
    const expected = readJson<Verdict>(kind);
    const report = await repairRepository({ directory, isDryRun: false, log: silentLog });
    const hurt = new Set(report.after.flatMap((finding) => finding.points));
    expect([...hurt].sort()).toEqual(expected.hurt);
    expect(await readable(directory)).toEqual(all.filter((id) => !hurt.has(id)));
    // What hurts nobody is mended from what is here.
    if (expected.hurt.length === 0) expect(report.after).toEqual([]);
    const impossible = report.steps.filter(({ isPossible }) => !isPossible);
    expect(impossible.length > 0).toBe(expected.hurt.length > 0);
  });
});

describe('repair', () => {
  it('takes nothing from a repository that is damaged at the same place', async () => {
    const directory = copyOf('pack-record-body');
    const from = copyOf('pack-record-body');
    const report = await repairRepository({ directory, from, isDryRun: false, log: silentLog });
    expect(report.after.flatMap((finding) => finding.points)).not.toEqual([]);
    expect(await readable(directory)).toEqual(
      all.filter((id) => !readJson<Verdict>('pack-record-body').hurt.includes(id)),
    );
  });

  it('mends what two repositories have lost at different places, each from the other', async () => {
    const one = copyOf('pack-missing');
    const other = copyOf('delta-missing');
    await repairRepository({ directory: one, from: other, isDryRun: false, log: silentLog });
    expect(await readable(one)).toEqual(all);
    const report = await repairRepository({
      directory: other,
      from: one,
      isDryRun: false,
      log: silentLog,
    });
    expect(report.after).toEqual([]);
    expect(await readable(other)).toEqual(all);
  });

  it('refuses to repair a repository from itself', async () => {
    const directory = copyOf('pack-footer');
    const repair = repairRepository({
      directory,
      from: `${directory}/repo`,
      isDryRun: false,
      log: silentLog,
    });
    await expect(repair).rejects.toMatchObject({ code: 'ERR_REPAIR_SAME' });
  });

  const formatOf = (directory: string) => readFileSync(join(directory, 'repo/format.json'), 'utf8');
  const damagedFormat = (change: (text: string) => string) => {
    const directory = copyOf('format-json');
    writeFileSync(join(directory, 'repo/format.json'), change(formatOf(directory)));
    return directory;
  };
  const broken = (text: string) => text.replace('understudy', 'something else');

  it.each([
    ['that is missing', () => copyOf('format-missing')],
    ['that is damaged', () => damagedFormat(broken)],
  ])('writes a format.json %s anew, with the identity that is known', async (_, damaged) => {
    const directory = damaged();
    const knownId = 'ab'.repeat(16);
    const options = { directory, isDryRun: true, knownId, log: silentLog };
    const plan = await repairRepository(options);
    expect(plan.steps).toHaveLength(1);
    await expect(openRepository(directory, silentLog)).rejects.toMatchObject({
      code: 'ERR_DATA_FORMAT',
    });
    const report = await repairRepository({ ...options, isDryRun: false });
    expect(report.after).toEqual([]);
    expect(await readable(directory)).toEqual(all);
    expect(JSON.parse(formatOf(directory))).toMatchObject({ id: knownId });
  });

  it.each([
    ['without which nothing opens', (text: string) => text],
    [
      'of its identity',
      (text: string) => text.replace('sep', 'rep').replace('"id": "b', '"id": "c'),
    ],
    ['of its time', (text: string) => text.replace('sep', 'rep').replace('Ms": 17', 'Ms": 16')],
  ])('turns back one bit of format.json, %s', async (_, change) => {
    const directory = damagedFormat(change);
    expect(formatOf(directory)).not.toBe(formatOf(join(fixtures, 'sound')));
    const report = await repairRepository({ directory, isDryRun: false, log: silentLog });
    expect(report).toMatchObject({ before: [{ kind: 'damaged-object' }], after: [] });
    expect(formatOf(directory)).toBe(formatOf(join(fixtures, 'sound')));
  });

  it('keeps the identity that a format.json has that is read, and is not as it was', async () => {
    const directory = damagedFormat((text) =>
      text.replace('sep', 'rep').replace('Ms": 17', 'Ms": 28'),
    );
    const repository = await openRepository(directory, silentLog);
    const { findings } = await repository.check({ readData: false });
    await repository.close();
    expect(findings).toMatchObject([{ kind: 'damaged-object', points: [] }]);
    const { id } = JSON.parse(formatOf(directory)) as { id: string };
    const report = await repairRepository({ directory, isDryRun: false, log: silentLog });
    expect(report.after).toEqual([]);
    expect(JSON.parse(formatOf(directory))).toMatchObject({ id });
  });

  it('leaves a format.json of another version alone, and a folder that is no repository', async () => {
    const directory = copyOf('sound');
    const path = join(directory, 'repo/format.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('"version": 1', '"version": 2'));
    const other = readFileSync(path, 'utf8');
    const options = { isDryRun: false, log: silentLog };
    await expect(repairRepository({ ...options, directory })).rejects.toMatchObject({
      code: 'ERR_DATA_FORMAT',
    });
    expect(readFileSync(path, 'utf8')).toBe(other);
    await expect(repairRepository({ ...options, directory: scratch })).rejects.toMatchObject({
      code: 'ERR_DATA_FORMAT',
    });
  });

  it('forgets what the service has noted once all is well, and not before', async () => {
    const directory = copyOf('pack-missing');
    writeFileSync(join(directory, 'damage'), '{}');
    await repairRepository({ directory, isDryRun: false, log: silentLog });
    expect(existsSync(join(directory, 'damage'))).toBe(true);
    await repairRepository({ directory, from: copyOf('sound'), isDryRun: false, log: silentLog });
    expect(existsSync(join(directory, 'damage'))).toBe(false);
  });
});
