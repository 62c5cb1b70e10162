/** What the commands of checks, repairs and the scrub print, and the words they take. */
import { describe, expect, it } from 'vitest';
import { parseRate } from '../../src/base/units.ts';
import { renderLast } from '../../src/cli/commands/repo-check-last.ts';
import { renderKeys } from '../../src/cli/commands/repo-key.ts';
import { renderRebuilt } from '../../src/cli/commands/repo-rebuild-catalog.ts';
import { renderRepair } from '../../src/cli/commands/repo-repair.ts';
import type { ApiScrub } from '../../src/staging/api-types.ts';
import type { StoredKey } from '../../src/store/keys/key-files.ts';

const finding = {
  kind: 'damaged-piece',
  object: 'a.pack',
  detail: 'is damaged',
  points: ['p'],
} as const;
const scrub: ApiScrub = {
  ...{ state: 'waiting', everyMs: 1, bytesPerSecond: 1, startedMs: 0, packs: 1, bytes: 2048 },
  ...{ finished: { startedMs: 0, endedMs: 0, packs: 1, bytes: 2048 }, checkedMs: 0 },
  ...{ findings: [], hurtPoints: [] },
};

describe('what was found last', () => {
  it('says when all was read, and that all is well', () => {
    const text = renderLast(scrub);
    expect(text).toContain('1970-01-01T00:00:00.000Z, 2.00 KiB');
    expect(text).toContain('all well');
    expect(renderLast({ ...scrub, checkedMs: null, finished: null })).toContain('nothing yet');
  });

  it('names damage and the points that it hurts', () => {
    const text = renderLast({ ...scrub, state: 'reading', findings: [finding], hurtPoints: ['p'] });
    expect(text).toContain('1 damaged');
    expect(text).toContain('damaged-piece: a.pack: is damaged; hurts 1 point');
    expect(text).toMatch(/hurt points:\s+p/);
  });
});

describe('a repair', () => {
  const step = { object: 'a.pack', action: 'copied', isPossible: true };
  const plan = { isDryRun: true, before: [finding], steps: [step], after: [finding] };

  it('tells a plan from what was done, and what could not be', () => {
    expect(renderRepair({ ...plan, before: [], steps: [], after: [] })).toContain(
      'nothing to repair',
    );
    expect(renderRepair(plan)).toMatch(/^would: a.pack: copied\n1 finding; give --yes to do it$/);
    const helpless = { ...plan, steps: [{ ...step, isPossible: false }] };
    expect(renderRepair(helpless)).toMatch(/1 finding, 1 step cannot be done; .*--from/);
    expect(renderRepair({ ...plan, isDryRun: false, after: [] })).toContain('all repaired');
    const cannot = { ...plan, isDryRun: false, steps: [{ ...step, isPossible: false }] };
    expect(renderRepair(cannot)).toMatch(/^cannot: .*\n1 finding left, to the harm of 1 point/);
  });

  it('of the catalog tells what only the old one knew', () => {
    const rebuilt = { points: 1, servers: 1, volumes: 2, found: 0, forgotten: ['x'] };
    expect(renderRebuilt(rebuilt)).toMatch(/1 point of 1 server and 2 volumes;.*\n.*\nx$/);
  });
});

describe('the keys', () => {
  it('are shown once for what opens them, with the number of their files', () => {
    const key = {
      ...{ id: 'aa', repository: 'r', purpose: 'root', domain: '', number: 1, createdMs: 0 },
      ...{ salt: '', sealed: '', master: { kind: 'kms', blob: '' } },
    } as unknown as StoredKey;
    const files = [key, key, { ...key, purpose: 'data', master: { kind: 'root', id: 'aa' } }];
    const lines = renderKeys(files as StoredKey[]).split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(/^aa +root .* kms +2$/);
    expect(lines[2]).toMatch(/root key aa +1$/);
  });
});

describe('a rate', () => {
  it.each([
    ['20MB/s', 20e6],
    ['1.5MiB/s', 1.5 * 2 ** 20],
    ['20MB', 20e6],
    ['0', 0],
  ])('is read from %s', (text, bytes) => {
    expect(parseRate(text)).toBe(bytes);
  });

  it.each(['20MB/m', '-1MB/s', '/s', 'fast'])('is not "%s"', (text) => {
    expect(() => parseRate(text)).toThrow(expect.objectContaining({ code: 'ERR_USAGE' }));
  });
});
