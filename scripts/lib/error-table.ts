/**
 * The table of error codes for the README, from the catalogue; a test holds the two together.
 *   error-table.ts [--write]   prints the table, or puts it into README.md
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorCatalogue } from '../../src/base/errors.ts';

const BEGIN = '<!-- errors: made by scripts/lib/error-table.ts --write -->';
const END = '<!-- errors end -->';

export function errorTable(): string {
  const rows = Object.entries(errorCatalogue).map(
    ([code, { kind, exitCode, hint, retryable }]) =>
      `| \`${code}\` | ${exitCode} | ${kind}${retryable ? ', retry' : ''} | ${hint} |`,
  );
  return ['| code | exit | kind | what to do |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

if (import.meta.main) {
  if (process.argv[2] === '--write') {
    const path = join(import.meta.dirname, '../../README.md');
    const text = readFileSync(path, 'utf8');
    const from = text.indexOf(BEGIN) + BEGIN.length;
    writeFileSync(
      path,
      `${text.slice(0, from)}\n\n${errorTable()}\n\n${text.slice(text.indexOf(END))}`,
    );
  } else {
    process.stdout.write(`${errorTable()}\n`);
  }
}
