/**
 * test-summary.ts RESULTS..: reads the JSON that vitest wrote, one file a run of it, names what failed or did
 * not run, and ends with the line "N passed, N failed". Exit 0 only where all that was there ran and passed;
 * a run that has left no results has failed.
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
const missing = paths.filter((path) => !existsSync(path) || readFileSync(path).length === 0);
const testResults = paths
  .filter((path) => !missing.includes(path))
  .flatMap((path) => (JSON.parse(readFileSync(path, 'utf8')) as Results).testResults);
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
for (const path of missing) say(`failed: no results in ${path}`);
const failures = failed.length + broken.length + left.length + missing.length;
say(`${passed.length} passed, ${failures} failed`);
process.exit(failures === 0 && passed.length > 0 ? 0 : 1);
