/** Drives the agent's state machine and keeps what it asks for; volumes and answers to drive it with. */
import { defaultSettings, reduce, startState } from '../../../src/agent/replication-state.ts';
import type {
  AgentEvent,
  AgentState,
  Effect,
  Instant,
  VolumeHealth,
} from '../../../src/agent/state-types.ts';
import type { VolumeStart } from '../../../src/agent/volume-state.ts';
import { MIB } from '../../../src/base/units.ts';
import type { PassResult, ReadFault } from '../../../src/native/types.ts';
import type { WelcomeVolume } from '../../../src/protocol/messages.ts';

export const SIZE = 64 * MIB;
export const CHUNKS = SIZE / 65536;
export const at = (ms: number): Instant => ({ monotonicMs: ms, wallMs: 1_000_000 + ms });

export const healthy: VolumeHealth = {
  sizeBytes: SIZE,
  fault: '',
  taint: '',
  pendingBytes: 0,
  dirtyBytes: 0,
  missedCompletions: 0,
  suspectBlocks: 0,
};

export const fresh = (over: Partial<VolumeStart> = {}): VolumeStart => ({
  name: '/dev/a',
  sizeBytes: SIZE,
  generation: 'g1',
  committedEpoch: 0,
  isTakenOver: false,
  isScanned: false,
  ...over,
});
export const old = (epoch: number, over: Partial<VolumeStart> = {}): VolumeStart =>
  fresh({ committedEpoch: epoch, isTakenOver: true, ...over });

export const nothingHeld: WelcomeVolume = { committed: null, syncedChunks: 0 };
export const held = (epoch: number, generation = 'g1', contentDigest = 'd'): WelcomeVolume => ({
  committed: { generation, epoch, contentDigest },
  syncedChunks: 0,
});

/** Drives the machine and keeps what it asked for. */
export class Driver {
  state: AgentState;
  effects: Effect[] = [];
  now = 0;

  constructor(volumes: VolumeStart[], settings = {}) {
    this.state = startState(volumes, { ...defaultSettings, ...settings }, 32);
  }

  send(event: AgentEvent): Effect[] {
    const step = reduce(this.state, event, at(this.now));
    this.state = step.state;
    this.effects = [...step.effects];
    return this.effects;
  }

  open(...welcome: WelcomeVolume[]): Effect[] {
    this.send({ type: 'start' });
    this.send({ type: 'connected' });
    return this.send({ type: 'welcome', volumes: welcome });
  }

  health(over: Partial<VolumeHealth>[] = []): VolumeHealth[] {
    return this.state.volumes.map((v, i) => ({ ...healthy, sizeBytes: v.sizeBytes, ...over[i] }));
  }

  observe(over: Partial<VolumeHealth>[] = []): Effect[] {
    return this.send({ type: 'observed', health: this.health(over), freeBuffers: 32 });
  }

  jobDone(
    over: Partial<PassResult> = {},
    faults: ReadFault[] = [],
    h: Partial<VolumeHealth>[] = [],
  ) {
    const job = this.state.job!;
    const id = 'id' in job ? job.id : 0;
    if (job.kind === 'sync') throw new Error('a sync runs');
    const result: PassResult = {
      job: id,
      outcome: job.kind === 'cut' ? 'valid' : 'drained',
      timeMs: at(this.now).wallMs,
      durationMs: 3,
      passes: 1,
      firstBlocks: 7,
      lastBlocks: 7,
      contestedBlocks: 0,
      carriedBlocks: 0,
      ...over,
    };
    return this.send({
      type: 'job-done',
      result,
      faults,
      health: this.health(h),
      freeBuffers: 32,
    });
  }

  syncDone(
    nextChunk: number,
    hasChanged = true,
    faults: ReadFault[] = [],
    h: Partial<VolumeHealth>[] = [],
  ): Effect[] {
    const job = this.state.job!;
    return this.send({
      type: 'sync-done',
      job: 'id' in job ? job.id : 0,
      nextChunk,
      hasChanged,
      faults,
      health: this.health(h),
      freeBuffers: 32,
    });
  }

  /** Answers the commit that is open. */
  committed(): Effect[] {
    const { cut } = this.state;
    if (cut.kind !== 'committing') throw new Error('no commit is open');
    return this.send({ type: 'committed', pointId: 'p', volumes: cut.volumes });
  }
}

export const types = (effects: Effect[]): string[] =>
  effects.map((effect) => effect.type).filter((type) => type !== 'log');
export const find = <T extends Effect['type']>(effects: Effect[], type: T) =>
  effects.find((effect): effect is Extract<Effect, { type: T }> => effect.type === type);

/** A server with one continuous volume whose first cut is committed. */
export function continuous(count = 1, settings = {}): Driver {
  const volumes = Array.from({ length: count }, (_, i) => old(3, { name: `/dev/${i}` }));
  const driver = new Driver(volumes, settings);
  driver.open(...volumes.map(() => held(3)));
  driver.jobDone();
  driver.committed();
  return driver;
}
