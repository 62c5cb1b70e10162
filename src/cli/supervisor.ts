/**
 * Tells systemd that the service does its work (a unit of Type=notify), by systemd's own program: Node has
 * no datagrams over unix sockets. Nothing is waited for, and where nobody supervises nothing is done.
 */
import { spawn } from 'node:child_process';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';

/**
 * Said again by services that do not run as root (root speaks in the name of this process): systemd before
 * 246 loses what a process said that has ended by the time it looks (github.com/systemd/systemd/issues/2739).
 * To be ready twice means nothing.
 */
const AGAIN_MS = [1000, 5000, 20_000];

export interface Supervised {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly log: Log;
}

export function tellReady({ environment, clock, log }: Supervised): void {
  if (environment.NOTIFY_SOCKET === undefined) return;
  const tell = () => {
    const child = spawn('systemd-notify', ['--ready'], {
      env: { ...environment },
      stdio: 'ignore',
    });
    child.on('error', (error) => log.warn('systemd was not told', { reason: error.message }));
    child.unref();
  };
  tell();
  if (process.getuid?.() === 0) return;
  for (const ms of AGAIN_MS) clock.after(ms, tell);
}
