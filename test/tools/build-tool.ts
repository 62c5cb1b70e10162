// Compiles a C program of test/tools once, into test/.cache, and again when its sources are newer.
import { mkdirSync, readdirSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './loop-device.ts';

const sources = import.meta.dirname;
const cache = join(sources, '..', '.cache');

const changedAt = (path: string) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

export function buildTool(name: string): string {
  const program = join(cache, name);
  const newest = Math.max(
    ...readdirSync(sources)
      .filter((file) => /\.[ch]$/.test(file))
      .map((file) => changedAt(join(sources, file))),
  );
  if (changedAt(program) > newest) return program;
  mkdirSync(cache, { recursive: true });
  const part = `${program}.${process.pid}`;
  const warnings = ['-Wall', '-Wextra', '-Wno-format'];
  run('gcc', '-O2', ...warnings, '-o', part, join(sources, `${name}.c`), '-l:liburing.a');
  renameSync(part, program);
  return program;
}
