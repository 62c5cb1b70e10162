/** A staging service of another version: it answers every Hello as it is told to. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { decodeMessage, encodeMessage } from '../../../src/protocol/codec.ts';
import type { Hello, Message } from '../../../src/protocol/messages.ts';
import { createUpgrades } from '../../../src/transport/server.ts';
import type { Scratch } from './scratch.ts';

/** Returns its URL. */
export async function startFakeStaging(
  scratch: Scratch,
  answer: (hello: Hello) => Message,
): Promise<string> {
  const upgrades = createUpgrades({
    passOf: () => ({ only: null }),
    onConnection(connect) {
      const connection = connect({
        onOpen: () => undefined,
        onMessage(frame) {
          const message = decodeMessage(frame);
          if (message.type === 'hello') connection.send(encodeMessage(answer(message)));
        },
        onDrained: () => undefined,
        onClosed: () => undefined,
      });
    },
  });
  const server = createServer((_request, response) => response.writeHead(404).end());
  server.on('upgrade', (request, socket, head) => upgrades.handle(request, socket, head));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  scratch.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
