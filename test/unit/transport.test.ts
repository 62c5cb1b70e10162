/** The WebSocket transport: the common contract, and what only it can meet: strangers, tokens, TLS. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, createServer as createNetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { systemClock } from '../../src/base/clock.ts';
import { agentUrl, createDialer } from '../../src/transport/client.ts';
import { Heartbeat } from '../../src/transport/heartbeat.ts';
import { isLoopback, requireTls } from '../../src/transport/loopback.ts';
import { createUpgrades } from '../../src/transport/server.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { type Accept, createMemoryNetwork } from './support/memory-transport.ts';
import { connectPair, describeTransport, End } from './support/transport-suite.ts';

const TOKEN = 'a-token';

interface Listening {
  url: string;
  port: number;
  accept: Accept;
  close(): Promise<void>;
}

async function listen(server: Server, scheme = 'http'): Promise<Listening> {
  const listening: Listening = {
    url: '',
    port: 0,
    accept: () => undefined,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  const upgrades = createUpgrades({
    passOf: (request) =>
      request.headers.authorization === `Bearer ${TOKEN}` ? { only: null } : null,
    onConnection: (open) => listening.accept(open),
  });
  server.on('upgrade', upgrades.handle);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  listening.port = (server.address() as AddressInfo).port;
  listening.url = `${scheme}://127.0.0.1:${listening.port}`;
  return listening;
}

async function dialFailure(url: string, token = TOKEN, authority?: string) {
  const end = new End();
  end.connection = createDialer({ url, token, authority }).dial(end.handlers);
  await end.until(() => end.error !== null);
  expect(end.events).toEqual(['closed']);
  return end.error!;
}

describeTransport('memory', async () => {
  const network = createMemoryNetwork(systemClock);
  return {
    dialer: network.dialer,
    listen: (accept) => network.listen(accept),
    close: async () => network.cut(),
  };
});

describeTransport('WebSocket', async () => {
  const server = await listen(createServer());
  return {
    dialer: createDialer({ url: server.url, token: TOKEN }),
    listen: (accept) => {
      server.accept = accept;
    },
    close: server.close,
  };
});

describe('dialing', () => {
  it('says that nobody listens', async () => {
    const server = await listen(createServer());
    await server.close();
    const error = await dialFailure(server.url);
    expect(error.code).toBe('ERR_CONNECTION_REFUSED');
    expect(error.spec.retryable).toBe(true);
  });

  it('says that the token is wrong, and that a retry is no use', async () => {
    const server = await listen(createServer());
    const error = await dialFailure(server.url, 'another');
    await server.close();
    expect(error.code).toBe('ERR_UNAUTHORIZED');
    expect(error.spec.retryable).toBe(false);
  });

  it.each([
    ['another HTTP service', ((_, response) => response.end('hello')) satisfies RequestListener],
    [
      'a service that fails',
      ((_, response) => response.writeHead(503).end()) satisfies RequestListener,
    ],
  ])('says that the address is of %s', async (_name, answer) => {
    const server = createServer(answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const error = await dialFailure(`http://127.0.0.1:${port}`);
    server.close();
    expect(error.code).toBe('ERR_CONNECTION_ANSWER');
  });

  it('says that something else than HTTP answers', async () => {
    const server = createNetServer((socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const error = await dialFailure(`http://127.0.0.1:${port}`);
    server.close();
    expect(error.code).toBe('ERR_CONNECTION_ANSWER');
  });

  it('can be given up while it dials', async () => {
    const server = createNetServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const end = new End();
    end.connection = createDialer({ url: `http://127.0.0.1:${port}`, token: TOKEN }).dial(
      end.handlers,
    );
    end.connection.close('never mind');
    await end.until(() => end.error !== null);
    server.close();
    expect(end.events).toEqual(['closed']);
  });

  it.each([
    'http://10.0.0.1:80',
    'ws://example.org',
    'http://[2001:db8::1]:1',
    'http://127.0.0.1.example.org',
  ])('refuses %s in clear', (url) => {
    expect(() => createDialer({ url, token: TOKEN })).toThrow(
      expect.objectContaining({ code: 'ERR_TLS_REQUIRED' }),
    );
  });

  it.each(['ftp://x', 'nonsense', ''])('refuses "%s" as no URL', (url) => {
    expect(() => createDialer({ url, token: TOKEN })).toThrow(
      expect.objectContaining({ code: 'ERR_USAGE' }),
    );
  });

  it.each([
    ['http://127.0.0.1:7', 'ws://127.0.0.1:7/v1/agent'],
    ['https://example.org/understudy/', 'wss://example.org/understudy/v1/agent'],
    ['ws://localhost:80/', 'ws://localhost/v1/agent'],
  ])('turns %s into %s', (url, wanted) => {
    expect(agentUrl(url).href).toBe(wanted);
  });
});

describe('the rule of TLS', () => {
  it.each(['127.0.0.1', '127.1.2.3', '::1', '[::1]', 'localhost', 'LOCALHOST'])(
    '%s is loopback',
    (host) => {
      expect(isLoopback(host)).toBe(true);
    },
  );

  it.each([
    '0.0.0.0',
    '::',
    '10.0.0.1',
    '128.0.0.1',
    '127.0.0.1.example.org',
    'localhost.example.org',
    '::2',
    '',
  ])('"%s" is not, and is refused without TLS', (host) => {
    expect(isLoopback(host)).toBe(false);
    expect(() => requireTls(host, false)).toThrow(
      expect.objectContaining({ code: 'ERR_TLS_REQUIRED' }),
    );
    requireTls(host, true);
  });
});

describe('the door', () => {
  const knock = (url: string, options: { token?: string; protocols?: string[]; path?: string }) =>
    new Promise<number>((resolve, reject) => {
      const socket = new WebSocket(
        `${url}${options.path ?? '/v1/agent'}`,
        options.protocols ?? [],
        {
          headers: { authorization: `Bearer ${options.token ?? TOKEN}` },
        },
      );
      socket.on('unexpected-response', (request, response) => {
        request.destroy();
        resolve(response.statusCode ?? 0);
      });
      socket.on('open', () => {
        socket.terminate();
        resolve(101);
      });
      socket.on('error', reject);
    });

  it.each([
    ['lets an agent in', { protocols: ['understudy.v1'] }, 101],
    ['among other subprotocols too', { protocols: ['other', 'understudy.v1'] }, 101],
    ['not without our subprotocol', {}, 400],
    ['nor with another', { protocols: ['understudy.v2'] }, 400],
    ['nor without the token', { protocols: ['understudy.v1'], token: 'x' }, 401],
    ['nor at another path', { protocols: ['understudy.v1'], path: '/v1/servers' }, 404],
  ])('%s', async (_name, options, status) => {
    const server = await listen(createServer());
    expect(await knock(server.url, options)).toBe(status);
    await server.close();
  });

  it('ends a connection that sends text', async () => {
    const server = await listen(createServer());
    const far = new End();
    server.accept = (open) => {
      far.connection = open(far.handlers);
    };
    const socket = new WebSocket(`${server.url}/v1/agent`, 'understudy.v1', {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    socket.on('open', () => socket.send('hello'));
    socket.on('error', () => undefined);
    await far.until(() => far.error !== null);
    await server.close();
    expect(far.error?.code).toBe('ERR_PROTOCOL_FRAME');
    expect(far.frames).toEqual([]);
  });

  it('ends a connection that announces a message longer than a frame, before it has come', async () => {
    const server = await listen(createServer());
    const far = new End();
    server.accept = (open) => {
      far.connection = open(far.handlers);
    };
    const socket = connect(server.port, '127.0.0.1');
    const key = Buffer.alloc(16, 1).toString('base64');
    socket.write(
      `GET /v1/agent HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer ${TOKEN}\r\n` +
        `Sec-WebSocket-Protocol: understudy.v1\r\n\r\n`,
    );
    const head = Buffer.from([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    socket.once('data', () => socket.write(head));
    socket.on('error', () => undefined);
    await far.until(() => far.error !== null);
    socket.destroy();
    await server.close();
    expect(far.error?.code).toBe('ERR_PROTOCOL_FRAME');
  });
});

describe('over TLS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-transport-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const path = (name: string) => join(folder, name);
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...[
        '-keyout',
        path('key.pem'),
        '-out',
        path('cert.pem'),
        '-days',
        '2',
        '-subj',
        '/CN=staging',
      ],
      ...['-addext', 'subjectAltName=IP:127.0.0.1'],
    ],
    { stdio: 'ignore' },
  );
  const cert = readFileSync(path('cert.pem'), 'utf8');
  const key = readFileSync(path('key.pem'), 'utf8');

  it('works with the authority given', async () => {
    const server = await listen(createTlsServer({ cert, key }), 'https');
    const dialer = createDialer({ url: server.url, token: TOKEN, authority: cert });
    const { near, far } = await connectPair({
      dialer,
      listen: (accept) => {
        server.accept = accept;
      },
      close: server.close,
    });
    near.connection.send(new Uint8Array(200_000));
    await far.until(() => far.frames.length === 1);
    near.connection.abort();
    await server.close();
  });

  it('says that the certificate is not trusted without it, and that a retry is no use', async () => {
    const server = await listen(createTlsServer({ cert, key }), 'https');
    const error = await dialFailure(server.url);
    await server.close();
    expect(error.code).toBe('ERR_TLS_UNTRUSTED');
    expect(error.spec.retryable).toBe(false);
  });

  it('says that a service in clear does not speak TLS', async () => {
    const server = await listen(createServer());
    const error = await dialFailure(server.url.replace('http:', 'https:'));
    await server.close();
    expect(error.code).toBe('ERR_CONNECTION_ANSWER');
  });
});

describe('heartbeat', () => {
  const make = () => {
    const clock = new VirtualClock();
    const pings: number[] = [];
    const silences: number[] = [];
    const heartbeat = new Heartbeat({
      clock,
      intervalMs: 2000,
      limitMs: 7000,
      sendPing: (id) => pings.push(id),
      onSilent: (ms) => silences.push(ms),
    });
    return { clock, pings, silences, heartbeat };
  };

  it('pings at every interval and is silent about a side that answers', async () => {
    const { clock, pings, silences, heartbeat } = make();
    for (let i = 1; i <= 10; i += 1) {
      await clock.runUntil(2000 * i);
      heartbeat.heard();
    }
    expect(pings).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(silences).toEqual([]);
  });

  it('gives up once, at the first beat beyond the limit', async () => {
    const { clock, silences } = make();
    await clock.runUntil(60_000);
    expect(silences).toEqual([8000]);
  });

  it('does not count silence while this side does not read', async () => {
    const { clock, silences, heartbeat } = make();
    heartbeat.hold(true);
    await clock.runUntil(60_000);
    expect(silences).toEqual([]);
    heartbeat.hold(false);
    await clock.runUntil(66_000);
    expect(silences).toEqual([]);
    await clock.runUntil(70_000);
    expect(silences).toHaveLength(1);
  });

  it('says nothing after it was stopped', async () => {
    const { clock, pings, silences, heartbeat } = make();
    heartbeat.stop();
    await clock.runUntil(60_000);
    expect([pings, silences]).toEqual([[], []]);
  });
});
