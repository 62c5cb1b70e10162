/** Threads are ended once they have loaded, and not before: Node may die of it. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { endable } from '../../src/base/worker-thread.ts';

const threadOf = (text: string) =>
  new Worker(`const { parentPort } = require('node:worker_threads');${text}`, { eval: true });

describe('a thread', () => {
  it('that still loads is ended when it has loaded; that word is not handed on', async () => {
    const go = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
       Atomics.wait(workerData, 0, 0);
       parentPort.postMessage('a word');
       parentPort.postMessage('loaded');
       parentPort.on('message', () => undefined);`,
      { eval: true, workerData: go },
    );
    const life = endable(worker);
    const said: unknown[] = [];
    life.onMessage((message) => said.push(message));
    let isEnded = false;
    const ended = life.end().then(() => {
      isEnded = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(isEnded).toBe(false);
    Atomics.store(go, 0, 1);
    Atomics.notify(go, 0);
    await ended;
    expect(said).toEqual(['a word']);
  });

  it.each(["throw new Error('bad')", 'process.exit(1)', ''])(
    'that ends by itself: %s',
    async (text) => {
      const worker = threadOf(text);
      await endable(worker).end();
      expect(worker.threadId).toBe(-1);
    },
  );
});
