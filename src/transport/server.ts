/**
 * The door for agents in an HTTP server: checks path, token and subprotocol of an upgrade, then hands a
 * Connection over. Whose token is good, and for what, is the caller's to say; the HTTP server itself is the
 * caller's too.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { SUBPROTOCOL } from '../protocol/messages.ts';
import { AGENT_PATH, MACHINE_HEADER } from './client.ts';
import type { Connection, ConnectionHandlers } from './types.ts';
import { socketOptions, WsConnection } from './ws-connection.ts';

/** What a token allows an agent. */
export interface AgentPass {
  /** The only server that it may speak for; null: any. */
  readonly only: string | null;
}

export interface UpgradeOptions {
  /** Null: nothing, it is refused. */
  passOf(request: IncomingMessage): AgentPass | null;
  /** A new agent: its handlers (`onOpen` is not called), and what its machine says of itself. */
  onConnection(
    connect: (handlers: ConnectionHandlers) => Connection,
    words: readonly string[],
    pass: AgentPass,
  ): void;
}

export interface Upgrades {
  /** For the 'upgrade' event of an HTTP server. */
  handle(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

function refuse(socket: Duplex, status: string, headers: readonly string[] = []): void {
  const lines = [`HTTP/1.1 ${status}`, 'Connection: close', 'Content-Length: 0', ...headers];
  socket.end(`${lines.join('\r\n')}\r\n\r\n`);
}

const offersSubprotocol = (request: IncomingMessage): boolean =>
  (request.headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .some((name) => name.trim() === SUBPROTOCOL);

const MAX_WORDS = 4;

/** What is no plain word is left out: it is shown to people. */
const machineWords = (header: string | string[] | undefined): string[] =>
  String(header ?? '')
    .split(',')
    .map((word) => word.trim())
    .filter((word) => /^[A-Za-z0-9._:-]{1,64}$/.test(word))
    .slice(0, MAX_WORDS);

export function createUpgrades({ passOf, onConnection }: UpgradeOptions): Upgrades {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    ...socketOptions,
    handleProtocols: () => SUBPROTOCOL,
  });
  return {
    handle(request, socket, head) {
      // Until ws takes the socket over, a reset would be an error that nobody listens to.
      socket.on('error', () => socket.destroy());
      const path = (request.url ?? '').split('?')[0];
      if (path !== AGENT_PATH) return refuse(socket, '404 Not Found');
      const pass = passOf(request);
      if (pass === null) {
        return refuse(socket, '401 Unauthorized', ['WWW-Authenticate: Bearer realm="understudy"']);
      }
      if (!offersSubprotocol(request)) return refuse(socket, '400 Bad Request');
      const peer = `${request.socket.remoteAddress}:${request.socket.remotePort}`;
      server.handleUpgrade(request, socket, head, (webSocket) => {
        onConnection(
          (handlers) => new WsConnection(webSocket, peer, handlers),
          machineWords(request.headers[MACHINE_HEADER]),
          pass,
        );
      });
    },
  };
}
