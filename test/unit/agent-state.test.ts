/** The agent's state machine: connection, Welcome and sync as tables (src/agent/SPEC.md). */
import { describe, expect, it } from 'vitest';
import { defaultSettings } from '../../src/agent/replication-state.ts';
import { stateOf } from '../../src/agent/report.ts';
import type { AgentEvent, Connection } from '../../src/agent/state-types.ts';
import type { VolumeStart } from '../../src/agent/volume-state.ts';
import type { WelcomeVolume } from '../../src/protocol/messages.ts';
import {
  CHUNKS,
  continuous,
  Driver,
  find,
  fresh,
  held,
  nothingHeld,
  old,
  SIZE,
  types,
} from './support/agent-driver.ts';

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

  it('waits where its machine was refused and may be let in yet', () => {
    const driver = new Driver([fresh()]);
    driver.send({ type: 'start' });
    driver.send({ ...lost, random: 1, isFatal: true, mayBeAdmitted: true });
    const { connection } = driver.state;
    expect(connection).toEqual({
      kind: 'backoff',
      untilMs: driver.now + defaultSettings.refusedWaitMs,
    });
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
