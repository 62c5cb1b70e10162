/** The HTTP server under the service: address, TLS, and the errors of both in our words. */
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { UnderstudyError } from '../base/errors.ts';
import { requireTls } from '../transport/loopback.ts';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** PEM texts. */
export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
}

/** "127.0.0.1:7007", "[::1]:0", "localhost:7007". ERR_USAGE. */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text.trim());
  const port = Number(match?.[3] ?? Number.NaN);
  if (match === null || port > 65535) {
    throw new UnderstudyError('ERR_USAGE', `not an address to listen at (HOST:PORT): "${text}"`);
  }
  return { host: match[1] ?? match[2]!, port };
}

export interface Listening {
  readonly server: Server;
  readonly url: string;
  /** Takes no more connections and ends open requests; agents' connections are left to their sessions. */
  close(): Promise<void>;
}

function createServer(tls: TlsIdentity | null, handler: RequestListener): Server {
  if (tls === null) return createHttpServer(handler);
  try {
    return createHttpsServer({ ...tls, minVersion: 'TLSv1.2' }, handler);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new UnderstudyError('ERR_TLS_FILES', `certificate and key: ${detail}`, {}, cause);
  }
}

/** ERR_TLS_REQUIRED, ERR_TLS_FILES, ERR_LISTEN. */
export async function listen(
  address: ListenAddress,
  tls: TlsIdentity | null,
  handler: RequestListener,
): Promise<Listening> {
  requireTls(address.host, tls !== null);
  const server = createServer(tls, handler);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const message = `cannot listen at ${address.host}:${address.port}: ${cause.code}`;
      reject(new UnderstudyError('ERR_LISTEN', message, {}, cause));
    });
    server.listen(address, resolve);
  });
  return {
    server,
    url: urlOf(address.host, (server.address() as AddressInfo).port, tls !== null),
    async close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function urlOf(host: string, port: number, isSecure: boolean): string {
  const isAny = host === '0.0.0.0' || host === '::';
  const name = isAny ? hostname() : host.includes(':') ? `[${host}]` : host;
  return `${isSecure ? 'https' : 'http'}://${name}:${port}`;
}
