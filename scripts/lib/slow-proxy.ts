/**
 * A proxy before an S3 server that is far away: hands every request on so many milliseconds after it came, and
 * counts. A process of its own, so that it takes nothing from who is measured. Words: URL of the server, delay.
 * Prints its own URL as the first line; for each line on standard input it prints, and forgets, what it has
 * counted since: requests, and bytes of their answers.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';

const { hostname, port } = new URL(process.argv[2]!);
const delayMs = Number(process.argv[3]);
const isLease = (url: string): boolean => /(?:\/|%2F)lease(?:\/|%2F)/.test(url);
let requests = 0;
let bytes = 0;

const server = http.createServer((request, response) => {
  const { method, url = '', headers } = request;
  // Leases come with time.
  const isCounted = !isLease(url);
  if (isCounted) requests += 1;
  request.on('error', () => response.destroy());
  setTimeout(() => {
    const sent = http.request(
      { hostname, port, method, path: url, headers, agent: false },
      (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.on('data', (part: Buffer) => {
          if (isCounted) bytes += part.length;
        });
        answer.pipe(response);
      },
    );
    sent.on('error', () => response.destroy());
    request.pipe(sent);
  }, delayMs);
});

server.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
const lines = createInterface({ input: process.stdin });
lines.on('line', () => {
  console.log(JSON.stringify({ requests, bytes }));
  requests = 0;
  bytes = 0;
});
lines.on('close', () => process.exit(0));
