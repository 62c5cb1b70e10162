/** What every transport must keep (`transport/types.ts`), as one suite of tests. */
import { describe, expect, it } from 'vitest';
import type { UnderstudyError } from '../../../src/base/errors.ts';
import { MAX_FRAME_BYTES } from '../../../src/protocol/limits.ts';
import type { Connection, Dialer } from '../../../src/transport/types.ts';
import { LOW_WATER_BYTES } from '../../../src/transport/types.ts';
import type { Accept } from './memory-transport.ts';

export interface TransportUnderTest {
  readonly dialer: Dialer;
  listen(accept: Accept): void;
  close(): Promise<void>;
}

/** One end with what happened to it. */
export class End {
  connection!: Connection;
  readonly frames: Uint8Array[] = [];
  readonly events: string[] = [];
  error: UnderstudyError | null = null;
  private waiting: (() => void)[] = [];

  readonly handlers = {
    onOpen: () => this.note('open'),
    onMessage: (frame: Uint8Array) => {
      this.frames.push(frame);
      this.note('message');
    },
    onDrained: () => this.note('drained'),
    onClosed: (error: UnderstudyError) => {
      this.error = error;
      this.note('closed');
    },
  };

  /** Resolves when `isSo` holds, looking again at every event. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  private note(event: string): void {
    this.events.push(event);
    for (const wake of this.waiting.splice(0)) wake();
  }
}

export async function connectPair(under: TransportUnderTest): Promise<{ near: End; far: End }> {
  const near = new End();
  const far = new End();
  const accepted = new Promise<void>((resolve) => {
    under.listen((connect) => {
      far.connection = connect(far.handlers);
      resolve();
    });
  });
  near.connection = under.dialer.dial(near.handlers);
  await Promise.all([accepted, near.until(() => near.events.includes('open'))]);
  return { near, far };
}

const frameOf = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);

export function describeTransport(name: string, make: () => Promise<TransportUnderTest>): void {
  const withPair = async (run: (near: End, far: End) => Promise<void>): Promise<void> => {
    const under = await make();
    try {
      const { near, far } = await connectPair(under);
      await run(near, far);
      near.connection.abort();
      far.connection.abort();
    } finally {
      await under.close();
    }
  };

  describe(`transport contract: ${name}`, () => {
    it('carries frames of all sizes both ways, whole and in order', () =>
      withPair(async (near, far) => {
        const sizes = [1, 20, 125, 126, 65_535, 65_536, 2 ** 20 + 7, MAX_FRAME_BYTES];
        sizes.forEach((size, i) => {
          near.connection.send(frameOf(size, i));
          far.connection.send(frameOf(size, i + 100));
        });
        await far.until(() => far.frames.length === sizes.length);
        await near.until(() => near.frames.length === sizes.length);
        expect(far.frames.map((frame) => [frame.length, frame[0], frame.at(-1)])).toEqual(
          sizes.map((size, i) => [size, i, i]),
        );
        expect(near.frames.map((frame) => [frame.length, frame[0]])).toEqual(
          sizes.map((size, i) => [size, i + 100]),
        );
      }));

    it('tells of nothing before the call that causes it has returned', () =>
      withPair(async (near, far) => {
        const before = [near.events.length, far.events.length];
        near.connection.send(frameOf(10, 1));
        far.connection.send(frameOf(10, 1));
        near.connection.close('enough');
        expect([near.events.length, far.events.length]).toEqual(before);
        await near.until(() => near.error !== null);
      }));

    it('delivers what was sent before a close, then tells both sides once', () =>
      withPair(async (near, far) => {
        near.connection.send(frameOf(300_000, 7));
        near.connection.close('that was all');
        near.connection.send(frameOf(5, 8));
        await far.until(() => far.error !== null);
        await near.until(() => near.error !== null);
        expect(far.frames.map((frame) => frame.length)).toEqual([300_000]);
        expect(far.error).toMatchObject({ code: 'ERR_CONNECTION_CLOSED' });
        expect(far.error?.message).toContain('that was all');
        expect(near.error).toMatchObject({ code: 'ERR_CONNECTION_CLOSED' });
        expect(far.events.filter((event) => event === 'closed')).toHaveLength(1);
        expect(near.events.at(-1)).toBe('closed');
      }));

    it('tells the other side of an abort as a loss', () =>
      withPair(async (near, far) => {
        near.connection.abort();
        await far.until(() => far.error !== null);
        expect(far.error).toMatchObject({ code: 'ERR_CONNECTION_LOST' });
        expect(far.error?.spec.retryable).toBe(true);
      }));

    it('holds the sender back while the receiver is paused, and tells it when it may go on', () =>
      withPair(async (near, far) => {
        far.connection.pause();
        const count = 24;
        for (let i = 0; i < count; i += 1) near.connection.send(frameOf(2 ** 20, i));
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(near.connection.bufferedBytes).toBeGreaterThan(LOW_WATER_BYTES);
        expect(far.frames.length).toBeLessThan(count);
        expect(near.events).not.toContain('drained');
        far.connection.resume();
        await far.until(() => far.frames.length === count);
        await near.until(() => near.events.includes('drained'));
        expect(far.frames.map((frame) => frame[0])).toEqual([...Array(count).keys()]);
      }));

    it('drops what is sent after the end', () =>
      withPair(async (near, far) => {
        far.connection.abort();
        await near.until(() => near.error !== null);
        near.connection.send(frameOf(5, 1));
        near.connection.close('again');
        near.connection.abort();
        near.connection.pause();
        near.connection.resume();
        expect(near.events.filter((event) => event === 'closed')).toHaveLength(1);
      }));
  });
}
