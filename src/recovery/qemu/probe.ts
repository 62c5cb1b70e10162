/**
 * An operator's own question to the guest: does a port take connections, does a page come, does a command
 * succeed. The way in is a
 * forwarded port on the loopback of this machine, made for the probe alone.
 */
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { type Clock, sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Probe } from './options.ts';
import type { Qmp } from './qmp.ts';
import { askBySsh } from './ssh-probe.ts';

const TRY_MS = 4000;
const POLL_MS = 200;

export interface ProbeWay {
  readonly hostPort: number;
  readonly qmp: Qmp;
  readonly clock: Clock;
  readonly probeKeys: string | null;
  /** The waiting is over. */
  readonly signal: AbortSignal;
}

export interface ProbeAnswer {
  /** One that is not good is asked for again, and told when the time is over. */
  readonly isGood: boolean;
  readonly detail: string;
  /** It is not good, and no later one will be. */
  readonly isLast?: boolean;
}

/** What answered, for people; null where nothing does (yet). */
export async function tryProbe(
  probe: Extract<Probe, { port: number }>,
  way: ProbeWay,
): Promise<ProbeAnswer | null> {
  if (probe.kind === 'ssh') {
    const keyPath = join(way.probeKeys!, probe.key);
    return askBySsh({ ...probe, keyPath, hostPort: way.hostPort, signal: way.signal });
  }
  if (probe.kind === 'http') return tryHttp(probe, way);
  const detail = await tryTcp(probe.port, way);
  return detail === null ? null : { isGood: true, detail };
}

/**
 * QEMU takes a connection before the guest does, so the connection itself says nothing: its table of
 * connections does.
 */
async function tryTcp(port: number, { hostPort, qmp, clock }: ProbeWay): Promise<string | null> {
  const socket = connect(hostPort, '127.0.0.1');
  let isClosed = false;
  socket.on('error', () => socket.destroy());
  socket.on('close', () => {
    isClosed = true;
  });
  try {
    const endMs = clock.monotonicMs() + TRY_MS;
    while (!isClosed && clock.monotonicMs() < endMs) {
      const words = { 'command-line': 'info usernet' };
      const table = await qmp.run<string>('human-monitor-command', words);
      if (isEstablished(table, port)) return `port ${port} takes connections`;
      await sleep(clock, POLL_MS);
    }
    return null;
  } finally {
    socket.destroy();
  }
}

/** Does the table of user-mode connections have an established one to the guest's `port`? */
export const isEstablished = (table: string, port: number): boolean =>
  table
    .split('\n')
    .some((line) => line.includes('TCP[ESTABLISHED]') && line.trim().split(/\s+/)[5] === `${port}`);

async function tryHttp(
  { port, path }: { port: number; path?: string },
  { hostPort }: ProbeWay,
): Promise<ProbeAnswer | null> {
  try {
    const response = await fetch(`http://127.0.0.1:${hostPort}${path}`, {
      ...{ redirect: 'manual', signal: AbortSignal.timeout(TRY_MS) },
    });
    await response.body?.cancel();
    const detail = `http port ${port} answers ${response.status}`;
    return { isGood: response.status < 400, detail };
  } catch (error) {
    if (error instanceof Error) return null; // refused, cut or too slow: asked again until the time is over
    throw error;
  }
}

/** Listens for a moment. ERR_LAUNCH_PORT where the port is taken. Port 0: any; returns the one it got. */
export function claimPort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const message = `${host}:${port} cannot be listened at: ${cause.code}`;
      reject(new UnderstudyError('ERR_LAUNCH_PORT', message, {}, cause));
    });
    server.listen(port, host, () => {
      const got = (server.address() as AddressInfo).port;
      server.close(() => resolve(got));
    });
  });
}
