/**
 * The repositories in test/fixtures/damaged, one for each kind of damage: a check finds what is written
 * beside each, the points that it says are hurt are those that cannot be restored, and no others. What is
 * written was made by test/tools/make-damaged.ts and looked at; that points restore is found out here.
 */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { type OfflineRepository, openRepository } from '../../src/store/offline.ts';
import { kinds } from '../tools/damage-kinds.ts';
import { fixtures, lookAt, type Verdict } from '../tools/damage-verdict.ts';
import { smallRepository } from '../tools/small-repository.ts';

interface Point {
  readonly id: string;
  readonly volumes: Readonly<Record<string, string>>;
}

const scratch = mkdtempSync(join(tmpdir(), 'understudy-damaged-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const readJson = <T>(name: string): T =>
  JSON.parse(readFileSync(join(fixtures, `${name}.json`), 'utf8')) as T;
const points = readJson<Point[]>('points');
const names = Object.keys(kinds);

/** The fixtures themselves are never opened: SQLite would leave files there. */
function copyOf(kind: string): string {
  const folder = join(scratch, `${kind}-${readdirSync(scratch).length}`);
  cpSync(join(fixtures, kind), folder, { recursive: true });
  return folder;
}

const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** True where all volumes read right; false for an error that says what is wrong; never wrong bytes. */
async function restores(repository: OfflineRepository, { id, volumes }: Point): Promise<boolean> {
  try {
    for (const [volume, digest] of Object.entries(volumes)) {
      const image = await repository.openImage(id, volume);
      expect(digestOf(await image.read(0, image.sizeBytes)), `${id} ${volume}`).toBe(digest);
      image.close();
    }
    return true;
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    // A damaged point is not listed; of the others the error names the damage.
    expect(error.spec.kind === 'corruption' || error.code === 'ERR_POINT_NOT_FOUND').toBe(true);
    return false;
  }
}

describe('damaged repositories', () => {
  it('are there for every kind, and nothing else is', () => {
    const found = readdirSync(fixtures, { withFileTypes: true });
    expect(found.filter((each) => each.isDirectory()).map(({ name }) => name)).toEqual(
      [...names].sort(),
    );
    expect(names.every((name) => existsSync(join(fixtures, `${name}.json`)))).toBe(true);
  });

  it('are made of the bytes that the store writes today', async () => {
    const { files } = await smallRepository();
    const sound = join(fixtures, 'sound');
    const there = readdirSync(sound, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(sound.length + 1));
    expect(there.sort()).toEqual([...files.keys()].filter((path) => path.startsWith('repo/')));
    for (const path of there) {
      expect(Buffer.compare(readFileSync(join(sound, path)), files.get(path)!), path).toBe(0);
    }
  });

  it.each(names)('%s: is found, and hurts the points that it is said to hurt', async (kind) => {
    const folder = copyOf(kind);
    const { what: _, ...expected } = readJson<Verdict & { what: string }>(kind);
    expect(await lookAt(folder)).toEqual(expected);
    if (expected.refused !== undefined) return;
    const repository = await openRepository(folder, silentLog);
    const hurt: string[] = [];
    for (const point of points) if (!(await restores(repository, point))) hurt.push(point.id);
    await repository.close();
    // A point that is gone is in no list of hurt ones: only the catalog's finding names it.
    const gone = kind === 'point-missing' ? points.slice(1, 2).map(({ id }) => id) : [];
    expect(hurt).toEqual([...expected.hurt, ...gone]);
  });
});
