#!/usr/bin/env node
/**
 * The program: gives a run of the command line its process. The only caller of process.exit, so that a
 * worker thread or a socket left open can never keep a finished command alive.
 */
import { holdProcess, systemClock } from '../base/clock.ts';
import { runCommandLine } from './run.ts';

// Timers of the clock do not hold the process, and a command may have nothing else to wait for.
holdProcess();
const stop = new AbortController();
let signalled = false;
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.on(name, () => {
    // The second signal does not wait: an operator who insists gets the prompt back.
    if (signalled) process.exit(name === 'SIGINT' ? 130 : 143);
    signalled = true;
    stop.abort();
  });
}
// `understudy point list | head` closes the pipe early: that is the reader's right, not an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

const exitCode = await runCommandLine(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  stdin: process.stdin,
  environment: process.env,
  clock: systemClock,
  stop: stop.signal,
});
process.stdout.write('', () => process.exit(exitCode));
