/**
 * test-summary.ts RESULTS..: reads the JSON that vitest wrote, one file a run of it, names what failed or did
 * not run, and ends with the line "N passed, N failed". Exit 0 only where all that was there ran and passed;
 * a run that has left no results has failed, and so has one that says so itself (RESULTS.exit, the exit status of
 * vitest) though each of its tests passed: something threw outside of any test.
 */
import { existsSync, readFileSync } from 'node:fs';

interface Results {
  testResults: {
    name: string;
    status: string;
    message: string;
    assertionResults: { status: string; fullName: string }[];
  }[];
}

const paths = process.argv.slice(2);
if (paths.length === 0) process.exit(2);
const textOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8').trim() : '');
const runs = paths.map((path) => {
  const text = textOf(path);
  const files = text === '' ? undefined : (JSON.parse(text) as Results).testResults;
  return { path, files, exit: textOf(`${path}.exit`) };
});
const testResults = runs.flatMap((run) => run.files ?? []);
const missing = runs.filter((run) => run.files === undefined);
// Where a test has failed too, that is told, and what else was thrown stands above with it.
const outside = runs.filter(
  (run) => run.exit !== '0' && run.files?.every((file) => file.status !== 'failed'),
);
const tests = testResults.flatMap((file) =>
  file.assertionResults.map((test) => ({ ...test, file: file.name })),
);
const say = (text: string) => process.stdout.write(`${text}\n`);

const passed = tests.filter((test) => test.status === 'passed');
const failed = tests.filter((test) => test.status === 'failed');
const left = tests.filter((test) => test.status !== 'passed' && test.status !== 'failed');
// A file that could not be loaded, or whose hooks failed, has no failing test of its own.
const broken = testResults.filter(
  (file) =>
    file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
);
for (const test of failed) say(`failed: ${test.fullName} (${test.file})`);
for (const file of broken) say(`failed: ${file.name}: ${file.message.split('\n')[0]}`);
for (const test of left) say(`did not run: ${test.fullName} (${test.file})`);
for (const run of missing) say(`failed: no results in ${run.path}`);
for (const run of outside) {
  const how = run.exit === '' ? 'did not end' : `exited with ${run.exit}`;
  const why = `vitest ${how} though no test failed: look for "Unhandled Errors" above`;
  say(`failed: outside of any test: ${why} (${run.path})`);
}
const failures = failed.length + broken.length + left.length + missing.length + outside.length;
say(`${passed.length} passed, ${failures} failed`);
process.exit(failures === 0 && passed.length > 0 ? 0 : 1);
