/** The servers of a staging service over a network in memory, with a store that notes what it is asked. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import type { UnderstudyError } from '../../../src/base/errors.ts';
import { type Log, silentLog } from '../../../src/base/log.ts';
import { nodeDisk } from '../../../src/base/node-disk.ts';
import { wholeEntry } from '../../../src/model/entry.ts';
import { CHUNK_BYTES } from '../../../src/model/geometry.ts';
import type { HelloVolume, Patch } from '../../../src/protocol/messages.ts';

import type { Durability } from '../../../src/staging/api-types.ts';

import { Machines } from '../../../src/staging/machines.ts';

import { Register } from '../../../src/staging/register.ts';
import { Servers } from '../../../src/staging/servers.ts';
import { inlineVerifier } from '../../../src/staging/verifier.ts';
import { FakeStore } from './fake-store.ts';
import { createMemoryNetwork, type MemoryNetwork } from './memory-transport.ts';
import { digestOf, rawPiece } from './messages.ts';
import { helloOf } from './scripted-agent.ts';

export const GENERATION = 'ab'.repeat(16);
export const volumes: HelloVolume[] = ['/a', '/b'].map((volume) => ({
  volume,
  sizeBytes: 8 * CHUNK_BYTES,
  sectorBytes: 512,
  generation: GENERATION,
  committedEpoch: 0,
  syncing: true,
}));
export const hello = helloOf('web', volumes);
/** The first commit of the first volume. */
export const first = [{ volume: 0, generation: GENERATION, epoch: 1 }];

export interface World {
  readonly fake: FakeStore;
  readonly servers: Servers;
  readonly network: MemoryNetwork;
  readonly register: Register;
  readonly machines: Machines;
  readonly broken: UnderstudyError[];
}

/** A folder of each test's own. */
export function useFolder(): { path: string } {
  const folder = { path: '' };
  beforeEach(async () => {
    folder.path = await mkdtemp(join(tmpdir(), 'understudy-servers-'));
  });
  afterEach(async () => {
    await rm(folder.path, { recursive: true });
  });
  return folder;
}

export async function makeWorld(
  folder: { path: string },
  clock: Clock = systemClock,
  fake = new FakeStore(),
  durability: Durability = 'local',
  log: Log = silentLog,
): Promise<World> {
  const network = createMemoryNetwork(clock);
  const disk = counted(nodeDisk);
  const register = await Register.open(disk, folder.path);
  const machines = await Machines.open(disk, folder.path, silentLog);
  const broken: UnderstudyError[] = [];
  let ids = 0;
  const servers = new Servers({
    clock,
    log,
    store: fake.store,
    register,
    machines,
    verifier: inlineVerifier,
    version: '0',
    durability,
    newId: () => `id-${++ids}`,
    onBroken: (error) => broken.push(error),
  });
  await servers.load();
  network.listen((connect) => servers.accept(connect));
  return { fake, servers, network, register, machines, broken };
}

export const patchOf = (text: string, volume = 0, seq = 0): Patch => ({
  type: 'patch',
  seq,
  volume,
  entries: [{ index: 0, count: 1, entry: wholeEntry(digestOf(text)) }],
  pieces: [rawPiece(text)],
});

let callsUnderWay = 0;

/** The same object; its asynchronous calls count as under way until they are answered. */
function counted<T extends object>(of: T): T {
  return new Proxy(of, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof value !== 'function') return value;
      return async (...given: unknown[]) => {
        callsUnderWay += 1;
        try {
          const answer: unknown = await value.apply(target, given);
          return key === 'open' ? counted(answer as object) : answer;
        } finally {
          callsUnderWay -= 1;
        }
      };
    },
  });
}

const QUIET_TURNS = 50;

/** Once nothing is under way on the disk and nothing more has come of it, however slow the machine is. */
export async function settled(): Promise<void> {
  // What is on a timer of the network.
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (let quiet = 0; quiet < QUIET_TURNS; quiet += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    if (callsUnderWay > 0) quiet = 0;
  }
}
