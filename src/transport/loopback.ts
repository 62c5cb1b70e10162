/**
 * The rule of TLS (P8): in clear only over loopback, where nobody can listen; everything else refuses to
 * run without. Decided by the address as it was written, never by what a name happens to resolve to.
 */
import { isIPv4 } from 'node:net';
import { UnderstudyError } from '../base/errors.ts';

export function isLoopback(host: string): boolean {
  const bare = host.toLowerCase().replace(/^\[(.*)\]$/, '$1');
  return bare === 'localhost' || bare === '::1' || (isIPv4(bare) && bare.startsWith('127.'));
}

/** Throws ERR_TLS_REQUIRED. */
export function requireTls(host: string, hasTls: boolean): void {
  if (hasTls || isLoopback(host)) return;
  throw new UnderstudyError('ERR_TLS_REQUIRED', `${host} is not loopback: not without TLS`, {
    host,
  });
}
