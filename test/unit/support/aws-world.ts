/** What tests of the EC2 target share: a connection to the double, images in memory, journals that can die. */
import { afterEach, beforeEach, expect } from 'vitest';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import type { Extent } from '../../../src/model/geometry.ts';
import { AwsConnection, type AwsSettings } from '../../../src/recovery/ec2/aws-connection.ts';
import type { BlockImage } from '../../../src/recovery/image-overlay.ts';
import { ACCESS_KEY, type AwsDouble, startAwsDouble } from '../../tools/aws-double.ts';

/** A thousand times as fast, but for the timers that bound a request: the double has no need of the waits. */
export const hurriedClock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * 1000,
  after: (delayMs: number, run: () => void) =>
    systemClock.after(delayMs >= 60_000 ? delayMs : delayMs / 1000, run),
};

/** Waits as short, but limits that are a tenth as short: a machine that is busy does not run into them. */
export const patientClock = {
  ...hurriedClock,
  monotonicMs: () => systemClock.monotonicMs() * 100,
};

export function useKey(key = ACCESS_KEY): void {
  process.env.AWS_ACCESS_KEY_ID = key;
  process.env.AWS_SECRET_ACCESS_KEY = 'secret';
  process.env.AWS_EC2_METADATA_DISABLED = 'true';
}

export const connectTo = (
  double: AwsDouble,
  settings: AwsSettings = {},
  clock: Clock = patientClock,
): AwsConnection =>
  new AwsConnection(
    { clock, random: Math.random },
    { endpoint: double.endpoint, region: 'us-east-1', ...settings },
  );

const GRAIN = 65_536;

/** Data is known at a granularity of 64 KiB, as the store's images know it. */
export function imageOf(content: Buffer): BlockImage {
  return {
    sizeBytes: content.length,
    read: async (offset, length) => content.subarray(offset, offset + length),
    nextData: async (offset) => {
      for (let at = offset - (offset % GRAIN); at < content.length; at += GRAIN) {
        const part = content.subarray(at, at + GRAIN);
        if (!part.some((byte) => byte !== 0)) continue;
        const start = Math.max(at, offset);
        return { offset: start, length: Math.min(at + GRAIN, content.length) - start };
      }
      return null;
    },
  };
}

/** Stretches of 64 KiB in which two images differ. */
export function differences(before: Buffer, after: Buffer): Extent[] {
  const found: Extent[] = [];
  for (let at = 0; at < after.length; at += GRAIN) {
    const length = Math.min(GRAIN, after.length - at);
    const isSame = after.subarray(at, at + length).equals(before.subarray(at, at + length));
    if (!isSame) found.push({ offset: at, length });
  }
  return found;
}

/** A record in memory. Once killed it takes nothing more, as a process that is gone. */
export function memoryRecord<T>() {
  const journal = {
    record: null as T | null,
    isKilled: false,
    load: async () => structuredClone(journal.record),
    save: async (record: T) => {
      if (journal.isKilled) throw new Error('killed');
      journal.record = structuredClone(record);
    },
  };
  return journal;
}

export interface AwsWorld {
  double: AwsDouble;
  aws: AwsConnection;
  /** The same double, by other settings of the client. */
  reconnect(settings?: AwsSettings, clock?: Clock): void;
  /** A new double, as if nothing had been made. */
  renew(): Promise<void>;
}

/** A new double and a connection to it for each test of the file. */
export function useAwsWorld(): AwsWorld {
  const world: AwsWorld = {
    ...({} as Pick<AwsWorld, 'double' | 'aws'>),
    reconnect(settings, clock) {
      world.aws.close();
      world.aws = connectTo(world.double, settings, clock);
    },
    async renew() {
      world.aws.close();
      await world.double.stop();
      await open();
    },
  };
  const open = async () => {
    world.double = await startAwsDouble();
    world.aws = connectTo(world.double);
  };
  beforeEach(() => {
    useKey();
    return open();
  });
  afterEach(async () => {
    world.aws.close();
    await world.double.stop();
  });
  return world;
}

/**
 * Makes call number `at` from now on, and all after it, those of a process that is killed: `isDone` tells
 * whether the call is carried out before. Ends with `revive`.
 */
export function killAt(
  { double }: AwsWorld,
  at: number,
  isDone: boolean,
  journal: { isKilled: boolean },
): { readonly stop: AbortSignal; revive(): void } {
  const stop = new AbortController();
  const first = double.calls.length;
  double.fault = (_call, number) => {
    if (number < first + at) return undefined;
    journal.isKilled = true;
    stop.abort(new Error('killed'));
    return { kind: 'drop', isDone };
  };
  return {
    stop: stop.signal,
    revive() {
      double.fault = () => undefined;
      journal.isKilled = false;
    },
  };
}

export const expectKilled = (error: unknown): void => expect(String(error)).toContain('killed');
