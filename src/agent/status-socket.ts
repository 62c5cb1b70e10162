/**
 * The agent's status on a unix socket: whoever connects gets one line of JSON. The live socket is also the
 * sign that an agent of this server runs here. It lies under /run, never on a replicated volume.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import type { AgentStatus } from './report.ts';

export const DEFAULT_RUN_DIRECTORY = '/run/understudy';
const MAX_PLAIN_NAME = 64;
const ANSWER_TIMEOUT_MS = 5000;

/** A unix socket's path has at most 107 bytes, so a long name is cut and told apart by a digest. */
export function socketPath(directory: string, server: string): string {
  const digest = createHash('sha256').update(server).digest('hex').slice(0, 16);
  const name =
    server.length <= MAX_PLAIN_NAME ? server : `${server.slice(0, MAX_PLAIN_NAME - 17)}-${digest}`;
  return join(directory, `${name}.sock`);
}

export interface StatusSocket {
  close(): Promise<void>;
}

/** Throws ERR_AGENT_RUNNING where another agent answers on the socket. */
export async function serveStatus(
  directory: string,
  server: string,
  status: () => AgentStatus | null,
): Promise<StatusSocket> {
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const path = socketPath(directory, server);
  if (await isAlive(path)) {
    const message = `an agent for server ${server} runs already (${path})`;
    throw new UnderstudyError('ERR_AGENT_RUNNING', message, { path });
  }
  rmSync(path, { force: true });
  const listener = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.end(`${JSON.stringify(status())}\n`);
  });
  await listen(listener, path);
  return {
    close: () =>
      new Promise((resolve) => {
        listener.close(() => resolve());
      }),
  };
}

function listen(listener: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once('error', (cause: NodeJS.ErrnoException) => {
      const code = cause.code === 'EADDRINUSE' ? 'ERR_AGENT_RUNNING' : 'ERR_DISK_PERMISSION';
      const context = { path, syscall: 'bind', errno: cause.code ?? '' };
      reject(new UnderstudyError(code, `cannot listen on ${path}`, context, cause));
    });
    listener.listen({ path, readableAll: false, writableAll: false }, resolve);
    listener.unref();
  });
}

const isAlive = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });

/** Why nobody could be asked: an agent that one may not ask may well run. */
export function statusFailure(path: string, server: string, cause?: unknown): UnderstudyError {
  const { code = '', syscall = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM') {
    const message = `may not ask the agent for server ${server} on ${path}: it answers root`;
    return new UnderstudyError(
      'ERR_DISK_PERMISSION',
      message,
      { path, syscall, errno: code },
      cause,
    );
  }
  const message = `no agent for server ${server} answers on ${path}`;
  return new UnderstudyError('ERR_AGENT_NOT_RUNNING', message, { path }, cause);
}

/** Asks the agent that runs here. Throws ERR_AGENT_NOT_RUNNING, ERR_DISK_PERMISSION. */
export function readStatus(directory: string, server: string): Promise<AgentStatus> {
  const path = socketPath(directory, server);
  return new Promise((resolve, reject) => {
    const fail = (cause?: unknown) => reject(statusFailure(path, server, cause));
    const socket = connect({ path, timeout: ANSWER_TIMEOUT_MS });
    const parts: Buffer[] = [];
    socket.on('timeout', () => socket.destroy(new Error('no answer')));
    socket.on('error', fail);
    socket.on('data', (part) => parts.push(part));
    socket.on('end', () => {
      const text = Buffer.concat(parts).toString('utf8');
      const status = text === '' ? null : (JSON.parse(text) as AgentStatus | null);
      if (status === null) fail();
      else resolve(status);
    });
  });
}
