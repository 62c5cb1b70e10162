/**
 * The bytes of a point for QEMU: nbdkit reads them by ranges from staging's image URL and hands them on
 * through a unix socket. It asks again while staging is being restarted, so the guest only waits. The
 * credential is a cookie for this point alone, read from its file and read again before it expires: it is
 * in no command line. It goes on as a daemon: in the foreground it would end with staging.
 */
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { ImageAddress } from '../launcher.ts';
import { startProgram } from './programs.ts';

/** Soon after staging has come back, what asks has a credential that it takes. */
const RENEW_S = 30;
/**
 * Staging may be away so long before the guest sees an error: 25 hours, with a try a second. The filter takes
 * 1000 tries at most, so it is there twice: the outer one asks the inner one again.
 */
const TRIES = 300;

export const imageServerPaths = (runFolder: string, index: number) => ({
  pidfile: join(runFolder, `disk${index}.pid`),
  socketPath: join(runFolder, `disk${index}.sock`),
});

/**
 * Writes the cookie. nbdkit 1.32 gives each run of the script a file in /tmp for its errors, looks there where
 * it fails, and never removes it: one that went well does.
 */
const cookieScript = (cookieFile: string): string =>
  `cat ${quoted(cookieFile)} && errors=$(readlink /proc/$$/fd/2) && ` +
  'case "$errors" in /tmp/errors??????) rm -f "$errors" ;; esac';

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

export function nbdkitWords(address: ImageAddress, runFolder: string, index: number): string[] {
  const { pidfile, socketPath } = imageServerPaths(runFolder, index);
  return [
    ...['--log=stderr', '--readonly', '--unix', socketPath, '--pidfile', pidfile],
    ...['--filter=retry-request', '--filter=retry-request', 'curl', `url=${address.url}`],
    ...[`unix-socket-path=${address.socketPath}`, 'protocols=http', 'timeout=60'],
    ...[`cookie-script=${cookieScript(address.cookieFile)}`, `cookie-script-renew=${RENEW_S}`],
    ...[`retry-request-retries=${TRIES}`, 'retry-request-delay=1'],
  ];
}

/** Resolves when the socket takes connections. ERR_LAUNCH_PROGRAM, ERR_LAUNCH_FAILED. */
export async function startImageServer(
  address: ImageAddress,
  where: { runFolder: string; index: number; logPath: string; clock: Clock; isLow: boolean },
): Promise<void> {
  const { runFolder, index, logPath, clock, isLow } = where;
  await startProgram({
    name: 'nbdkit',
    words: nbdkitWords(address, runFolder, index),
    pidfile: imageServerPaths(runFolder, index).pidfile,
    ...{ logPath, clock, isLow },
  });
}
