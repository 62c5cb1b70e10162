/**
 * The agent's way to staging: a WebSocket over http on loopback or https anywhere. Every failure arrives
 * at `onClosed` with a code that tells whether dialing again can help.
 *
 * ws masks what a client sends, because masking protects proxies from browsers that run strangers' code
 * (RFC 6455, 10.3). We are no browser and are on TLS or loopback: a key of zeros is a valid key, and ws
 * then skips the work and the copy.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { getCACertificates } from 'node:tls';
import WebSocket from 'ws';
import { UnderstudyError } from '../base/errors.ts';
import { SUBPROTOCOL } from '../protocol/messages.ts';
import { requireTls } from './loopback.ts';
import type { Connection, ConnectionHandlers, Dialer } from './types.ts';
import { socketOptions, WsConnection } from './ws-connection.ts';

export const AGENT_PATH = '/v1/agent';
/** Comma between words. Staging tells by it which machine it has refused; nothing is decided by it alone. */
export const MACHINE_HEADER = 'understudy-machine';
const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface DialerOptions {
  /** http(s):// or ws(s)://, with or without a path before AGENT_PATH. */
  readonly url: string;
  readonly token: string;
  /** PEM of a certificate (or its authority) to trust besides those of the system. */
  readonly authority?: string | undefined;
  /** What this machine says of itself in clear (MACHINE_HEADER). */
  readonly words?: readonly string[];
}

const certificateErrors = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_GET_ISSUER_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_UNTRUSTED',
]);

/** ws(s) address of the agents' door. Throws ERR_USAGE, ERR_TLS_REQUIRED. */
export function agentUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^(https?|wss?):$/.test(url.protocol)) {
    throw new UnderstudyError('ERR_USAGE', `not an http(s) URL: "${text}"`);
  }
  url.protocol = url.protocol.replace(/^http/, 'ws');
  requireTls(url.hostname, url.protocol === 'wss:');
  url.pathname = url.pathname.replace(/\/+$/, '') + AGENT_PATH;
  return url;
}

/** An error before the connection was open. */
function dialError(error: Error, host: string): UnderstudyError {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const wrap = (as: 'ERR_TLS_UNTRUSTED' | 'ERR_CONNECTION_ANSWER' | 'ERR_CONNECTION_REFUSED') =>
    new UnderstudyError(as, `${host}: ${error.message || code}`, { host }, error);
  if (certificateErrors.has(code)) return wrap('ERR_TLS_UNTRUSTED');
  if (code === '' || code === 'EPROTO' || code.startsWith('HPE_') || code.startsWith('WS_ERR_')) {
    return wrap('ERR_CONNECTION_ANSWER');
  }
  return wrap('ERR_CONNECTION_REFUSED');
}

function refusedUpgrade(status: number | undefined, host: string): UnderstudyError {
  if (status === 401) {
    return new UnderstudyError('ERR_UNAUTHORIZED', `${host} does not accept the token`, { host });
  }
  const message = `${host} answered ${status}, not as a staging service does`;
  return new UnderstudyError('ERR_CONNECTION_ANSWER', message, { host });
}

/** Throws ERR_USAGE, ERR_TLS_REQUIRED for a URL that may not be dialed at all. */
export function createDialer({ url: text, token, authority, words = [] }: DialerOptions): Dialer {
  const url = agentUrl(text);
  const trust = authority === undefined ? {} : { ca: [...getCACertificates('default'), authority] };
  return {
    dial(handlers: ConnectionHandlers): Connection {
      const socket = new WebSocket(url, SUBPROTOCOL, {
        ...socketOptions,
        ...trust,
        generateMask: (mask) => mask.fill(0),
        headers: {
          authorization: `Bearer ${token}`,
          ...(words.length > 0 && { [MACHINE_HEADER]: words.join(',') }),
        },
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
        followRedirects: false,
      });
      let isOpen = false;
      socket.on('error', (error) => {
        if (!isOpen) connection.fail(dialError(error, url.host));
      });
      const connection = new WsConnection(socket, url.host, handlers);
      socket.on('open', () => {
        isOpen = true;
        handlers.onOpen();
      });
      socket.on('unexpected-response', (request: ClientRequest, response: IncomingMessage) => {
        response.resume();
        connection.fail(refusedUpgrade(response.statusCode, url.host));
        request.destroy();
      });
      return connection;
    },
  };
}
