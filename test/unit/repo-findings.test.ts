/** Many findings of one cause are told in short; few, and all of them as JSON, one by one. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { findingLines, stepLines } from '../../src/cli/commands/repo-findings.ts';
import { openRepository } from '../../src/store/offline.ts';
import type { Finding } from '../../src/store/types.ts';
import { fixtures } from '../tools/damage-verdict.ts';

const scratch = mkdtempSync(join(tmpdir(), 'understudy-told-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const digestOf = (n: number) => String(n).padStart(64, '0');
const missing = (n: number, more: Partial<Finding> = {}): Finding => ({
  ...{ kind: 'missing-piece', object: `/r/${n}.delta`, points: ['p', `q${n}`] },
  ...{ detail: `${digestOf(n)} is not held: /r/x.pack is gone`, digest: digestOf(n), ...more },
});

describe('findings', () => {
  it('of a pack that is gone are one, with the first contents and what they hurt together', () => {
    const all = Array.from({ length: 614 }, (_, n) => missing(n));
    const lines = findingLines([...all, missing(700, { detail: `${digestOf(700)} is not held` })]);
    expect(lines).toEqual([
      'missing-piece: 614 contents: is not held: /r/x.pack is gone; hurts 615 points',
      ...[0, 1, 2].map((n) => `  /r/${n}.delta: ${digestOf(n)}`),
      '  and 611 more: --json tells all',
      `missing-piece: /r/700.delta: ${digestOf(700)} is not held; hurts 2 points`,
    ]);
  });

  it('that are few have a line each, in which a path stands once', () => {
    const damaged = (n: number): Finding => ({
      ...{
        kind: 'damaged-object',
        object: '/r/a.pack',
        detail: `/r/a.pack: block ${n}`,
        points: [],
      },
    });
    expect(findingLines([damaged(0), damaged(1)])).toEqual([
      'damaged-object: /r/a.pack: block 0',
      'damaged-object: /r/a.pack: block 1',
    ]);
    const many = findingLines([0, 1, 2, 3, 4].map(damaged));
    expect([many[0], many.at(-1)]).toEqual([
      'damaged-object: /r/a.pack: 5 findings',
      '  and 2 more: --json tells all',
    ]);
  });

  it('name the pack that is gone, in a repository that has lost one', async () => {
    const folder = join(scratch, 'lost');
    cpSync(join(fixtures, 'pack-missing'), folder, { recursive: true });
    const repository = await openRepository(folder, silentLog);
    const { findings } = await repository.check({ readData: false });
    await repository.close();
    const held = findings.filter(({ detail }) => detail.includes('is not held'));
    expect(held.length).toBeGreaterThan(0);
    for (const { detail } of held) expect(detail).toMatch(/is not held: .+\.pack is gone$/);
  });
});

it('steps of a repair that differ in a content alone are told in short', () => {
  const step = (n: number, isPossible = false) => ({
    ...{ object: `/r/${n}.delta`, action: `content ${digestOf(n)} is right nowhere`, isPossible },
  });
  const mark = ({ isPossible }: { isPossible: boolean }) => (isPossible ? 'would' : 'cannot');
  const lines = stepLines([step(9, true), ...Array.from({ length: 50 }, (_, n) => step(n))], mark);
  expect(lines.slice(0, 2)).toEqual([
    `would: /r/9.delta: content ${digestOf(9)} is right nowhere`,
    'cannot: 50 times: content .. is right nowhere',
  ]);
  expect([lines.length, lines.at(-1)]).toEqual([6, '  and 47 more: --json tells all']);
});
