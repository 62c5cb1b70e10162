/** A check of points that only the catalog knows: the newest of a server was lost, others may have been dropped. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { isHarm } from '../../src/cli/commands/repo-findings.ts';
import { openRepository } from '../../src/store/offline.ts';
import { fixtures } from '../tools/damage-verdict.ts';

const scratch = mkdtempSync(join(tmpdir(), 'understudy-behind-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const ids = (
  JSON.parse(readFileSync(join(fixtures, 'points.json'), 'utf8')) as { id: string }[]
).map(({ id }) => id);

async function findingsWithout(lost: string | undefined) {
  const folder = mkdtempSync(join(scratch, 'data-'));
  cpSync(join(fixtures, 'point-missing'), folder, { recursive: true });
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (name.endsWith(`${lost}.point`)) rmSync(join(folder, name));
  }
  const repository = await openRepository(folder, silentLog);
  const { findings } = await repository.check({ readData: false });
  await repository.close();
  return findings;
}

it('one that is not the newest of its server may have been dropped', async () => {
  const findings = await findingsWithout(undefined);
  expect(findings.map(({ kind }) => kind)).toEqual(['stale-catalog']);
  expect(findings.some(isHarm)).toBe(false);
});

it('the newest of its server was lost', async () => {
  const newest = ids.toSorted().at(-1)!;
  const findings = await findingsWithout(newest);
  expect(findings.filter(isHarm)).toMatchObject([{ kind: 'missing-object', points: [newest] }]);
});
