/**
 * The last word of scripts/test: runs of vitest that end well, and those that do not although no test failed.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

const summary = resolve(import.meta.dirname, '../../scripts/lib/test-summary.ts');
const vitest = resolve(import.meta.dirname, '../../node_modules/.bin/vitest');
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'summary-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs `text` as a file of tests, as scripts/test does. */
function runTests(text: string): string {
  writeFileSync(join(folder, 'some.test.ts'), `import { expect, it } from 'vitest';\n${text}`);
  const results = join(folder, 'results.json');
  const args = ['run', '--root', folder, '--reporter=json', `--outputFile.json=${results}`];
  const run = spawnSync(vitest, args, { encoding: 'utf8' });
  writeFileSync(`${results}.exit`, `${run.status}\n`);
  return results;
}

function summarize(results: string) {
  const run = spawnSync(process.execPath, [summary, results], { encoding: 'utf8' });
  return { status: run.status, lines: run.stdout.trimEnd().split('\n') };
}

it('passes what passed', () => {
  const results = runTests("it('holds', () => expect(1).toBe(1));");
  expect(summarize(results)).toEqual({ status: 0, lines: ['1 passed, 0 failed'] });
});

it('counts an error that was thrown outside of any test', () => {
  const results = runTests(
    `it('holds', async () => {
      void Promise.reject(new Error('lost'));
      await new Promise((resolve) => setImmediate(resolve));
    });`,
  );
  expect(summarize(results)).toEqual({
    status: 1,
    lines: [
      expect.stringMatching(
        /^failed: outside of any test: vitest exited with 1 .* look for "Unhandled Errors" above/,
      ),
      '1 passed, 1 failed',
    ],
  });
});

it('counts a failed test once', () => {
  const results = runTests("it('does not hold', () => expect(1).toBe(2));");
  expect(summarize(results)).toEqual({
    status: 1,
    lines: [expect.stringMatching(/^failed: does not hold/), '0 passed, 1 failed'],
  });
});

it('counts a run that was ended before it could say how', () => {
  const results = runTests("it('holds', () => expect(1).toBe(1));");
  rmSync(`${results}.exit`);
  expect(summarize(results).lines.at(-1)).toBe('1 passed, 1 failed');
});
