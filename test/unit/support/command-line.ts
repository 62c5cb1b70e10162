/** The command line within this process: what it prints on either side, and its exit code. */
import { Readable } from 'node:stream';
import { systemClock } from '../../../src/base/clock.ts';
import { runCommandLine } from '../../../src/cli/run.ts';

export interface Ran {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

/** Neither output is a terminal, and nothing comes on the standard input. */
export async function runLine(
  line: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  stop = new AbortController().signal,
): Promise<Ran> {
  let out = '';
  let err = '';
  const exitCode = await runCommandLine([...line], {
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
    stdin: Readable.from([]),
    environment: { ...environment },
    clock: systemClock,
    stop,
  });
  return { exitCode, out, err };
}
