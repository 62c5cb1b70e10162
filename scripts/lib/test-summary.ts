/**
 * test-summary.ts RESULTS: reads the JSON that vitest wrote over all projects, names what failed or did not
 * run, and ends with the line "N passed, N failed". Exit 0 only where all that was there ran and passed.
 */
import { readFileSync } from 'node:fs';

interface Results {
  testResults: {
    name: string;
    status: string;
    message: string;
    assertionResults: { status: string; fullName: string }[];
  }[];
}

const path = process.argv[2];
if (path === undefined) process.exit(2);
const { testResults } = JSON.parse(readFileSync(path, 'utf8')) as Results;
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
const failures = failed.length + broken.length + left.length;
say(`${passed.length} passed, ${failures} failed`);
process.exit(failures === 0 && passed.length > 0 ? 0 : 1);
