/** The agent's state machine: tables of state x event, and the invariants of src/agent/SPEC.md. */
import { describe, expect, it } from 'vitest';
import {
  defaultSettings,
  nextTickMs,
  reduce,
  startState,
} from '../../src/agent/replication-state.ts';
import { stateOf } from '../../src/agent/report.ts';
import type {
  AgentEvent,
  AgentState,
  Connection,
  Effect,
  Instant,
  VolumeHealth,
} from '../../src/agent/state-types.ts';
import type { VolumeStart } from '../../src/agent/volume-state.ts';
import { MIB } from '../../src/base/units.ts';
import type { PassResult, ReadFault } from '../../src/native/types.ts';
import type { WelcomeVolume } from '../../src/protocol/messages.ts';

const SIZE = 64 * MIB;
const CHUNKS = SIZE / 65536;
const at = (ms: number): Instant => ({ monotonicMs: ms, wallMs: 1_000_000 + ms });

const healthy: VolumeHealth = {
  sizeBytes: SIZE,
  fault: '',
  taint: '',
  pendingBytes: 0,
  dirtyBytes: 0,
  missedCompletions: 0,
  suspectBlocks: 0,
};

const fresh = (over: Partial<VolumeStart> = {}): VolumeStart => ({
  name: '/dev/a',
  sizeBytes: SIZE,
  generation: 'g1',
  committedEpoch: 0,
  isTakenOver: false,
  isScanned: false,
  ...over,
});
const old = (epoch: number, over: Partial<VolumeStart> = {}): VolumeStart =>
  fresh({ committedEpoch: epoch, isTakenOver: true, ...over });

const nothingHeld: WelcomeVolume = { committed: null, syncedChunks: 0 };
const held = (epoch: number, generation = 'g1', contentDigest = 'd'): WelcomeVolume => ({
  committed: { generation, epoch, contentDigest },
  syncedChunks: 0,
});

/** Drives the machine and keeps what it asked for. */
class Driver {
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

const types = (effects: Effect[]): string[] =>
  effects.map((effect) => effect.type).filter((type) => type !== 'log');
const find = <T extends Effect['type']>(effects: Effect[], type: T) =>
  effects.find((effect): effect is Extract<Effect, { type: T }> => effect.type === type);

/** A server with one continuous volume whose first cut is committed. */
function continuous(count = 1, settings = {}): Driver {
  const volumes = Array.from({ length: count }, (_, i) => old(3, { name: `/dev/${i}` }));
  const driver = new Driver(volumes, settings);
  driver.open(...volumes.map(() => held(3)));
  driver.jobDone();
  driver.committed();
  return driver;
}

describe('connection', () => {
  const lost = { type: 'disconnected', reason: 'x', isFatal: false, random: 0.5 } as const;
  const table: [Connection['kind'], AgentEvent, Connection['kind'], string[]][] = [
    ['idle', { type: 'start' }, 'connecting', ['dial']],
    ['idle', { type: 'connected' }, 'idle', []],
    ['idle', lost, 'idle', []],
    ['connecting', { type: 'start' }, 'connecting', []],
    ['connecting', { type: 'connected' }, 'greeting', ['greet']],
    ['connecting', lost, 'backoff', []],
    ['connecting', { type: 'welcome', volumes: [nothingHeld] }, 'connecting', []],
    ['greeting', { type: 'connected' }, 'greeting', []],
    ['greeting', lost, 'backoff', []],
    ['greeting', { type: 'welcome', volumes: [] }, 'backoff', ['hang-up']],
    ['greeting', { type: 'welcome', volumes: [nothingHeld] }, 'open', ['pend-outstanding', 'sync']],
    ['open', { type: 'connected' }, 'open', []],
    ['open', { type: 'welcome', volumes: [nothingHeld] }, 'open', []],
    ['open', lost, 'backoff', []],
    ['backoff', { type: 'connected' }, 'backoff', []],
    ['backoff', lost, 'backoff', []],
    ['backoff', { type: 'start' }, 'backoff', []],
  ];
  const kinds: Record<string, (driver: Driver) => void> = {
    idle: () => undefined,
    connecting: (d) => d.send({ type: 'start' }),
    greeting: (d) => {
      d.send({ type: 'start' });
      d.send({ type: 'connected' });
    },
    open: (d) => d.open(nothingHeld),
    backoff: (d) => {
      d.send({ type: 'start' });
      d.send(lost);
    },
  };
  it.each(table)('%s, %o -> %s', (from, event, to, effects) => {
    const driver = new Driver([fresh()]);
    kinds[from]!(driver);
    const isWorking = from === 'open';
    driver.send(event);
    expect(driver.state.connection.kind).toBe(to);
    if (!isWorking) expect(types(driver.effects)).toEqual(effects);
  });

  it('waits longer after each failed dial, never longer than the cap, never less than half', () => {
    const driver = new Driver([fresh()]);
    driver.send({ type: 'start' });
    const waits: number[] = [];
    for (let i = 0; i < 12; i += 1) {
      driver.send({ ...lost, random: i % 2 });
      const { connection } = driver.state;
      if (connection.kind !== 'backoff') throw new Error('not waiting');
      waits.push(connection.untilMs - driver.now);
      driver.now = connection.untilMs;
      expect(types(driver.send({ type: 'tick' }))).toContain('dial');
    }
    expect(waits[0]).toBe(defaultSettings.backoffBaseMs / 2);
    expect(Math.max(...waits)).toBe(defaultSettings.backoffCapMs);
    expect(waits.slice(8).every((w) => w >= defaultSettings.backoffCapMs / 2)).toBe(true);
  });

  it('gives up where it is refused for what it is, but not once it was open', () => {
    const driver = new Driver([fresh()]);
    driver.send({ type: 'start' });
    driver.send({ ...lost, isFatal: true });
    expect(types(driver.effects)).toEqual(['give-up']);
    const opened = new Driver([fresh()]);
    opened.open(nothingHeld);
    opened.send({ ...lost, isFatal: true });
    expect(opened.state.connection.kind).toBe('backoff');
  });

  it('greets only when the job of the former session has ended', () => {
    const driver = new Driver([old(3)]);
    driver.open(held(3));
    expect(driver.state.job?.kind).toBe('cut');
    driver.send(lost);
    driver.now = 60_000;
    driver.send({ type: 'tick' });
    driver.send({ type: 'connected' });
    expect(driver.state.connection.kind).toBe('settling');
    const effects = driver.jobDone({ outcome: 'valid' });
    expect(types(effects)).toEqual(['greet']);
    expect(driver.state.cut.kind).toBe('none');
  });

  it('does nothing more once it is closed', () => {
    const driver = continuous();
    expect(types(driver.send({ type: 'close' }))).toEqual(['hang-up', 'stopped']);
    driver.now = 60_000;
    expect(driver.send({ type: 'tick' })).toEqual([]);
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('stopped');
  });
});

describe('welcome', () => {
  const sent = (digest: string) => ({ epoch: 4, contentDigest: digest });
  type Row = [
    string,
    VolumeStart,
    { epoch: number; contentDigest: string } | null,
    WelcomeVolume,
    string,
  ];
  const rows: Row[] = [
    ['fresh, nothing there', fresh(), null, nothingHeld, 'initial-sync'],
    ['fresh, other generation there', fresh(), null, held(9, 'g0'), 'rescan'],
    ['fresh, resumes', fresh(), null, { committed: null, syncedChunks: 5 }, 'initial-sync from 5'],
    ['fresh, all synced', fresh(), null, { committed: null, syncedChunks: CHUNKS }, 'continuous'],
    ['epoch 0 of our generation', fresh(), null, held(0), 'rescan?'],
    ['first acknowledgement lost', old(0), null, held(1), 'acknowledged 1'],
    ['first commit of nobody', fresh(), null, held(1), 'renewal'],
    ['same position', old(3), null, held(3), 'continuous'],
    ['acknowledgement lost, taken over', old(3), null, held(4), 'acknowledged 4'],
    [
      'acknowledgement lost, same digest',
      fresh({ committedEpoch: 3 }),
      sent('d'),
      held(4),
      'acknowledged 4',
    ],
    ['one ahead, other digest', fresh({ committedEpoch: 3 }), sent('other'), held(4), 'renewal'],
    ['one ahead, never sent', fresh({ committedEpoch: 3 }), null, held(4), 'renewal'],
    ['two ahead', old(3), null, held(5), 'renewal'],
    ['behind', old(3), null, held(2), 'renewal'],
    ['behind: nothing', old(3), null, nothingHeld, 'renewal'],
    ['behind: other generation', old(3), null, held(3, 'g0'), 'renewal'],
  ];
  it.each(rows)('%s', (_, start, lastSent, welcome, expected) => {
    const driver = new Driver([start]);
    driver.state = {
      ...driver.state,
      volumes: [{ ...driver.state.volumes[0]!, sent: lastSent }],
    };
    const effects = driver.open(welcome);
    const volume = driver.state.volumes[0]!;
    expect(types(effects)[0]).toBe('pend-outstanding');
    if (expected === 'renewal') {
      expect(volume.renewal).not.toBe('');
      expect(types(effects)).toContain('renew');
    } else if (expected.startsWith('acknowledged')) {
      const epoch = Number(expected.split(' ')[1]);
      expect(types(effects).slice(0, 2)).toEqual(['pend-outstanding', 'acknowledge']);
      expect(volume.committedEpoch).toBe(epoch);
      expect(volume.sync).toBeNull();
    } else if (expected === 'continuous') {
      expect(volume.sync).toBeNull();
      expect(types(effects)).toContain('cut');
    } else {
      expect(find(effects, 'sync')!.fromChunk).toBe(welcome.syncedChunks);
      expect(volume.sync!.isRescan).toBe(expected === 'rescan');
    }
  });

  it('starts a scanned volume over after any break', () => {
    const driver = new Driver([old(3, { isScanned: true })]);
    const effects = driver.open(held(3));
    expect(types(effects)).toEqual(['sync']);
    expect(find(effects, 'sync')).toMatchObject({ fromChunk: 0, isResumable: false });
  });

  it('begins the new generation with a new Hello', () => {
    const driver = new Driver([old(3)]);
    expect(types(driver.open(held(2)))).toEqual(['pend-outstanding', 'renew']);
    const effects = driver.send({
      type: 'renewed',
      volume: 0,
      generation: 'g2',
      sizeBytes: SIZE,
    });
    expect(types(effects)).toEqual(['hang-up', 'dial']);
    driver.send({ type: 'connected' });
    const next = driver.send({ type: 'welcome', volumes: [held(2)] });
    expect(find(next, 'sync')).toMatchObject({ fromChunk: 0, isResumable: true });
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('rescan');
    expect(driver.state.volumes[0]!.reason).toMatch(/behind/);
  });
});

describe('initial sync', () => {
  it('reads slice after slice, is whole when all has been sent, and cuts at once', () => {
    const driver = new Driver([fresh()]);
    driver.open(nothingHeld);
    expect(types(driver.syncDone(500))).toEqual(['sync']);
    expect(types(driver.syncDone(CHUNKS))).toEqual([]);
    driver.send({ type: 'sync-sent', volume: 0, chunk: 500 });
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('initial-sync');
    const effects = driver.send({ type: 'sync-sent', volume: 0, chunk: CHUNKS });
    expect(types(effects)).toEqual(['cut']);
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('creating-recovery-point');
  });

  it('never counts more as sent than was read', () => {
    const driver = new Driver([fresh()]);
    driver.open(nothingHeld);
    driver.syncDone(10);
    driver.send({ type: 'sync-sent', volume: 0, chunk: 400 });
    expect(driver.state.volumes[0]!.sync!.sentChunk).toBe(10);
  });

  it('waits for free buffers', () => {
    const driver = new Driver([fresh()]);
    driver.open(nothingHeld);
    const job = driver.state.job!;
    const none = driver.send({
      type: 'sync-done',
      job: 'id' in job ? job.id : 0,
      nextChunk: 9,
      hasChanged: true,
      faults: [],
      health: driver.health(),
      freeBuffers: 2,
    });
    expect(types(none)).toEqual([]);
    expect(types(driver.send({ type: 'freed', freeBuffers: 8 }))).toEqual(['sync']);
  });

  it('goes on beside cuts of the other volumes, which are partial points', () => {
    const driver = new Driver([old(3), fresh({ name: '/dev/b', generation: 'g2' })]);
    const first = driver.open(held(3), nothingHeld);
    expect(find(first, 'cut')!.volumes).toEqual([0]);
    const after = driver.jobDone();
    expect(find(after, 'commit')!.volumes.map((v) => v.volume)).toEqual([0]);
    expect(find(after, 'sync')!.volume).toBe(1);
  });

  it('drains syncing volumes now and then', () => {
    const driver = new Driver([fresh()]);
    driver.open(nothingHeld);
    const waits = [{ pendingBytes: 4096 }];
    expect(types(driver.syncDone(10, true, [], waits))).toEqual(['drain']);
    expect(types(driver.jobDone({}, [], waits))).toEqual(['sync']);
    driver.now = defaultSettings.cutIntervalMs - 1;
    expect(types(driver.syncDone(20, true, [], waits))).toEqual(['sync']);
    driver.now += 1;
    expect(types(driver.syncDone(30, true, [], waits))).toEqual(['drain']);
  });

  it('takes two volumes in turn even when drains come between', () => {
    const driver = new Driver([fresh(), fresh({ name: '/dev/b' })]);
    driver.open(nothingHeld, nothingHeld);
    const order = [];
    for (let i = 1; i <= 4; i += 1) {
      const job = driver.state.job!;
      order.push(job.kind === 'sync' ? job.volume : job.kind);
      driver.syncDone(i);
    }
    expect(order).toEqual([0, 1, 0, 1]);
  });

  it('goes back to the chunk that could not be read, and tries again later', () => {
    const driver = new Driver([fresh()]);
    driver.open(nothingHeld);
    const faults = [{ volume: 0, offset: 3 * 65536 + 4096, length: 4096, errno: 'EIO' }];
    driver.syncDone(100, true, faults);
    expect(driver.state.volumes[0]).toMatchObject({ phase: 'failed' });
    expect(driver.state.volumes[0]!.sync!.nextChunk).toBe(3);
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('stalled');
    driver.now = defaultSettings.retryVolumeMs;
    expect(find(driver.send({ type: 'tick' }), 'sync')!.fromChunk).toBe(3);
  });
});

describe('cuts', () => {
  it('cuts all continuous volumes every interval, one commit at a time', () => {
    const driver = continuous(2);
    driver.now = 4999;
    expect(types(driver.observe())).toEqual([]);
    driver.now = 5000;
    expect(find(driver.observe(), 'cut')!.volumes).toEqual([0, 1]);
    driver.now = 5100;
    const effects = driver.jobDone({ timeMs: 777, passes: 4 });
    expect(find(effects, 'commit')).toMatchObject({
      timeMs: 777,
      cut: { method: 'validated', passes: 4 },
      volumes: [
        { volume: 0, generation: 'g1', epoch: 5 },
        { volume: 1, generation: 'g1', epoch: 5 },
      ],
    });
    driver.now = 20_000;
    expect(types(driver.observe())).toEqual([]);
    expect(types(driver.committed())).toEqual(['acknowledge', 'acknowledge', 'cut']);
  });

  it('reads nothing of volumes in a commit until it is answered, but drains the others', () => {
    const driver = continuous(2, { drainThresholdBytes: MIB });
    driver.now = 5000;
    driver.observe();
    driver.jobDone({}, [{ volume: 1, offset: 0, length: 4096, errno: 'EIO' }]);
    expect(find(driver.effects, 'commit')!.volumes.map((v) => v.volume)).toEqual([0]);
    driver.now = 11_000;
    driver.send({ type: 'tick' });
    const effects = driver.observe([{ pendingBytes: 9 * MIB }, { pendingBytes: 9 * MIB }]);
    expect(find(effects, 'drain')!.volumes).toEqual([1]);
  });

  it('drains between cuts when much waits, and before a cut', () => {
    const driver = continuous(1, { drainThresholdBytes: MIB });
    expect(types(driver.observe([{ pendingBytes: 2 * MIB }]))).toEqual(['drain']);
    expect(types(driver.jobDone())).toEqual([]);
    driver.now = 5000;
    expect(types(driver.observe([{ pendingBytes: 2 * MIB }]))).toEqual(['drain']);
    expect(types(driver.jobDone())).toEqual(['cut']);
  });

  it('tries a cut in the end even though the backlog does not shrink', () => {
    const driver = continuous(1, { drainThresholdBytes: MIB });
    driver.now = 5000;
    driver.observe([{ pendingBytes: 2 * MIB }]);
    let drains = 0;
    while (driver.state.job?.kind === 'drain' && drains < 50) {
      drains += 1;
      driver.jobDone({}, [], [{ pendingBytes: 2 * MIB }]);
    }
    expect(driver.state.job?.kind).toBe('cut');
    expect(drains).toBeLessThan(10);
  });

  it('after a deadline drains, then cuts again with more time; the state is backlog', () => {
    const driver = continuous();
    driver.now = 5000;
    driver.observe();
    expect(types(driver.jobDone({ outcome: 'deadline' }))).toEqual(['drain']);
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('backlog');
    const again = find(driver.jobDone(), 'cut')!;
    expect(again.deadlineMs).toBe(2 * defaultSettings.cutDeadlineMs);
    driver.jobDone();
    expect(stateOf(driver.state, driver.state.volumes[0]!)).toBe('continuous');
  });

  it('cuts at once where an operator asks, once for each request', () => {
    const driver = continuous();
    const first = driver.send({ type: 'cut-requested', requestId: 'r1' });
    expect(types(first)).toEqual(['cut']);
    driver.send({ type: 'cut-requested', requestId: 'r1' });
    driver.send({ type: 'cut-requested', requestId: 'r2' });
    expect(find(driver.jobDone(), 'commit')!.requestId).toBe('r1');
    expect(types(driver.committed())).toEqual(['acknowledge', 'cut']);
    expect(find(driver.jobDone(), 'commit')!.requestId).toBe('r2');
  });

  it('keeps the request of a cut whose session ended', () => {
    const driver = continuous();
    driver.send({ type: 'cut-requested', requestId: 'r1' });
    driver.jobDone();
    driver.send({ type: 'disconnected', reason: 'x', isFatal: false, random: 0 });
    expect(driver.state.requests).toEqual(['r1']);
    expect(driver.state.cut.kind).toBe('none');
  });

  it('reads missing chunks whole and cuts again at a new T', () => {
    const driver = continuous();
    driver.now = 5000;
    driver.observe();
    driver.jobDone();
    const effects = driver.send({
      type: 'missing',
      volumes: [{ volume: 0, chunks: [1, CHUNKS - 1], more: false }],
    });
    expect(types(effects)).toEqual(['pend', 'cut']);
    expect(find(effects, 'pend')!.extents).toEqual([
      { offset: 65536, length: 65536 },
      { offset: (CHUNKS - 1) * 65536, length: 65536 },
    ]);
  });

  it('begins a new generation where staging never has enough', () => {
    const driver = continuous();
    driver.now = 5000;
    driver.observe();
    for (let i = 0; i < 9; i += 1) {
      driver.jobDone();
      const volumes = [{ volume: 0, chunks: [1], more: false }];
      driver.send({ type: 'missing', volumes });
    }
    expect(driver.state.volumes[0]!.renewal).toMatch(/missing/);
    expect(types(driver.effects)).toContain('renew');
  });

  it('hangs up on an answer that names other epochs', () => {
    const driver = continuous();
    driver.now = 5000;
    driver.observe();
    driver.jobDone();
    const volumes = [{ volume: 0, generation: 'g1', epoch: 77 }];
    const effects = driver.send({ type: 'committed', pointId: 'p', volumes });
    expect(types(effects)).toEqual(['hang-up']);
    expect(driver.state.volumes[0]!.committedEpoch).toBe(4);
  });

  it('remembers what it sent, so that a lost acknowledgement is known', () => {
    const driver = continuous();
    driver.now = 5000;
    driver.observe();
    driver.jobDone();
    driver.send({ type: 'commit-sent', volumes: [{ volume: 0, epoch: 5, contentDigest: 'dd' }] });
    driver.send({ type: 'disconnected', reason: 'x', isFatal: false, random: 0 });
    driver.now = 90_000;
    driver.send({ type: 'tick' });
    driver.send({ type: 'connected' });
    const effects = driver.send({ type: 'welcome', volumes: [held(5, 'g1', 'dd')] });
    expect(types(effects)).toEqual(['pend-outstanding', 'acknowledge', 'cut']);
  });
});

describe('failures of a volume', () => {
  const rows: [string, Partial<VolumeHealth>, string, string][] = [
    ['grown', { sizeBytes: 2 * SIZE }, 'renewal', 'grown'],
    ['shrunk', { sizeBytes: SIZE / 2 }, 'renewal', 'shrunk'],
    ['tainted', { taint: 'passthrough' }, 'renewal', 'passthrough'],
    ['vanished', { sizeBytes: -1, fault: 'ENODEV' }, 'failed', 'vanished'],
  ];
  it.each(rows)('%s before the cut: %o', (_, health, outcome, reason) => {
    const driver = continuous(2);
    driver.observe([{}, health]);
    const volume = driver.state.volumes[1]!;
    expect(volume.reason).toContain(reason);
    expect(volume.renewal !== '').toBe(outcome === 'renewal');
    expect(volume.phase === 'failed').toBe(outcome === 'failed');
    if (outcome === 'failed') {
      driver.now = 5000;
      expect(find(driver.observe([{}, health]), 'cut')!.volumes).toEqual([0]);
    }
  });

  it.each(rows)('%s during the cut is left out of the commit', (_, health) => {
    const driver = continuous(2);
    driver.now = 5000;
    driver.observe();
    const effects = driver.jobDone({}, [], [{}, health]);
    expect(find(effects, 'commit')!.volumes.map((v) => v.volume)).toEqual([0]);
  });

  it('lets the others go on when reads fail, and takes the volume in again', () => {
    const driver = continuous(2);
    driver.now = 5000;
    driver.observe();
    const fault = { volume: 1, offset: 8192, length: 4096, errno: 'EIO' };
    const effects = driver.jobDone({ outcome: 'deadline' }, [fault]);
    expect(types(effects)).toEqual(['pend', 'cut']);
    expect(find(effects, 'cut')!.volumes).toEqual([0]);
    expect(driver.state.volumes[1]!.reason).toBe('read error EIO at byte 8192');
    driver.jobDone();
    driver.committed();
    driver.now = 10_001;
    driver.send({ type: 'tick' });
    expect(find(driver.effects, 'cut')!.volumes).toEqual([0, 1]);
  });

  it('takes a vanished device that came back as doubtful', () => {
    const driver = continuous();
    driver.observe([{ sizeBytes: -1, fault: 'ENODEV' }]);
    driver.now = 60_000;
    expect(types(driver.send({ type: 'tick' }))).toEqual(['observe']);
    driver.observe([{}]);
    driver.now = 120_000;
    expect(types(driver.send({ type: 'tick' }))).toContain('renew');
  });

  it('tries a renewal that failed again later', () => {
    const driver = continuous();
    expect(types(driver.observe([{ taint: 'x' }]))).toEqual(['renew']);
    driver.send({ type: 'renewal-failed', volume: 0, reason: 'busy' });
    expect(driver.state.volumes[0]!.phase).toBe('failed');
    driver.now = 60_000;
    expect(types(driver.send({ type: 'tick' }))).toContain('renew');
  });

  it('waits with a renewal for the answer to an open commit', () => {
    const driver = continuous(2);
    driver.now = 5000;
    driver.observe();
    driver.jobDone();
    expect(types(driver.observe([{ taint: 'x' }]))).toEqual([]);
    expect(types(driver.committed())).toEqual(['acknowledge', 'acknowledge', 'renew']);
  });
});

describe('scanned volumes', () => {
  const scanned = (): Driver => {
    const driver = new Driver([fresh({ isScanned: true })]);
    driver.open(nothingHeld);
    driver.syncDone(CHUNKS);
    driver.send({ type: 'sync-sent', volume: 0, chunk: CHUNKS });
    return driver;
  };

  it('commits at the begin of a pass that finds nothing changed', () => {
    const driver = scanned();
    expect(driver.state.job).toMatchObject({ kind: 'sync', isPass: true });
    driver.now = 300;
    const effects = driver.syncDone(CHUNKS, false);
    expect(find(effects, 'commit')).toMatchObject({
      timeMs: at(0).wallMs,
      cut: { method: 'scan', passes: 1 },
    });
  });

  it('passes again where something changed', () => {
    const driver = scanned();
    driver.now = 300;
    expect(types(driver.syncDone(10, true))).toEqual(['sync']);
    expect(types(driver.syncDone(CHUNKS, false))).toEqual(['sync']);
    expect(find(driver.syncDone(CHUNKS, false), 'commit')).toMatchObject({
      timeMs: at(300).wallMs,
      cut: { passes: 2 },
    });
  });

  it('rests as long as a pass took', () => {
    const driver = scanned();
    driver.now = 30_000;
    driver.syncDone(CHUNKS, false);
    driver.committed();
    driver.now = 59_000;
    expect(types(driver.observe())).toEqual([]);
    driver.now = 60_000;
    expect(types(driver.observe())).toEqual(['sync']);
  });

  it('gives a request a pass of its own', () => {
    const driver = scanned();
    driver.send({ type: 'cut-requested', requestId: 'r' });
    expect(find(driver.syncDone(CHUNKS, false), 'commit')!.requestId).toBe('');
    expect(types(driver.committed())).toEqual(['acknowledge', 'sync']);
    expect(find(driver.syncDone(CHUNKS, false), 'commit')!.requestId).toBe('r');
  });
});

describe('time', () => {
  it('always names a moment for the next tick, and never one that has passed twice', () => {
    const driver = continuous();
    driver.now = 5001;
    driver.send({ type: 'tick' });
    expect(nextTickMs(driver.state, at(driver.now))).toBeGreaterThan(5001);
  });
});
