/**
 * An HTTP proxy before an S3 server that fails chosen requests, as networks and services do: before the
 * server has heard of them, or after it has done what was asked. `Host` is handed on as it came, so that
 * signatures stay right.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';

export type Failure =
  /** The connection breaks before the server hears of it. */
  | 'reset'
  /** The server does it, and the connection breaks instead of an answer. */
  | 'answer-lost'
  /** The server does it, and half of its answer comes. */
  | 'cut-short'
  | 'no-answer'
  | '500'
  | '503'
  | '403'
  | 'no-bucket';

const answers: Partial<Record<Failure, { status: number; code: string }>> = {
  '500': { status: 500, code: 'InternalError' },
  '503': { status: 503, code: 'SlowDown' },
  '403': { status: 403, code: 'AccessDenied' },
  'no-bucket': { status: 404, code: 'NoSuchBucket' },
};

export class FailingProxy {
  /** Asked for each request, which are counted from 1; null lets it pass. */
  plan: (count: number, method: string, url: string) => Failure | null = () => null;
  count = 0;
  readonly seen: string[] = [];
  private readonly server: http.Server;
  private readonly target: URL;

  private constructor(target: string) {
    this.target = new URL(target);
    this.server = http.createServer((request, response) => this.handle(request, response));
  }

  static async start(target: string): Promise<FailingProxy> {
    const proxy = new FailingProxy(target);
    await new Promise<void>((done) => proxy.server.listen(0, '127.0.0.1', done));
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  reset(plan: FailingProxy['plan'] = () => null): void {
    this.count = 0;
    this.seen.length = 0;
    this.plan = plan;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  private handle(request: http.IncomingMessage, response: http.ServerResponse): void {
    const parts: Buffer[] = [];
    request.on('error', () => response.destroy());
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      this.count += 1;
      this.seen.push(`${request.method} ${request.url}`);
      const failure = this.plan(this.count, request.method ?? '', request.url ?? '');
      const answer = failure === null ? undefined : answers[failure];
      if (failure === 'reset') request.socket.destroy();
      else if (answer !== undefined) {
        const text = `<Error><Code>${answer.code}</Code><Message>planned</Message></Error>`;
        response.writeHead(answer.status, { 'content-type': 'application/xml' });
        response.end(request.method === 'HEAD' ? '' : text);
      } else if (failure !== 'no-answer') {
        this.forward(request, Buffer.concat(parts), response, failure);
      }
    });
  }

  private forward(
    request: http.IncomingMessage,
    body: Buffer,
    response: http.ServerResponse,
    failure: Failure | null,
  ): void {
    const { method, url, headers } = request;
    const { hostname, port } = this.target;
    const sent = http.request(
      { hostname, port, method, path: url, headers, agent: false },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part: Buffer) => parts.push(part));
        answer.on('end', () => {
          const whole = Buffer.concat(parts);
          if (failure === 'answer-lost') return request.socket.destroy();
          const kept = { ...answer.headers };
          delete kept['transfer-encoding'];
          if (method !== 'HEAD') kept['content-length'] = String(whole.length);
          response.writeHead(answer.statusCode ?? 500, kept);
          if (failure !== 'cut-short') return response.end(whole);
          response.write(whole.subarray(0, whole.length >> 1), () => request.socket.destroy());
        });
      },
    );
    sent.on('error', () => request.socket.destroy());
    sent.end(body);
  }
}
