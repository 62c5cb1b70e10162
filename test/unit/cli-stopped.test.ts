/** A signal ends a command that reads a repository by itself at once, however long an answer takes. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { untilStopped } from '../../src/cli/until-stopped.ts';
import { runLine } from './support/command-line.ts';

let silent: Server;
let onAsk: () => void = () => undefined;
const before = { ...process.env };
beforeAll(async () => {
  const credentials = {
    AWS_ACCESS_KEY_ID: 'a',
    AWS_SECRET_ACCESS_KEY: 'b',
    AWS_REGION: 'us-east-1',
  };
  Object.assign(process.env, credentials);
  silent = createServer(() => onAsk());
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  process.env = before;
  silent.closeAllConnections();
  await new Promise((resolve) => silent.close(resolve));
});

describe('a bucket that does not answer', () => {
  // One that waits for an answer asks again and again, for longer than a test may take.
  it.each(['check', 'stats'])('does not hold repo %s', async (word) => {
    const stop = new AbortController();
    onAsk = () => stop.abort();
    const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const line = ['repo', word, '--repo', 's3://bucket/prefix', '--s3-endpoint', endpoint];
    const { exitCode, err } = await runLine(line, {}, stop.signal);
    expect(err).toContain('ERR_CLI_INTERRUPTED');
    expect(exitCode).toBe(3);
  });
});

describe('what only reads', () => {
  const stop = new AbortController();

  it('comes to its end, or fails, where no signal comes', async () => {
    expect(await untilStopped(stop.signal, Promise.resolve(1))).toBe(1);
    await expect(untilStopped(stop.signal, Promise.reject(new Error('x')))).rejects.toThrow('x');
  });

  it('is left where it is by a signal, also by one that came before', async () => {
    const never = new Promise(() => undefined);
    const left = untilStopped(stop.signal, never);
    stop.abort();
    await expect(left).rejects.toBe(stop.signal.reason);
    await expect(untilStopped(stop.signal, never)).rejects.toBe(stop.signal.reason);
  });
});
