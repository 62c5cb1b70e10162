/** The agent's state machine: cuts, commits, failures of volumes, scan passes (src/agent/SPEC.md). */
import { describe, expect, it } from 'vitest';
import { defaultSettings, nextTickMs } from '../../src/agent/replication-state.ts';
import { stateOf } from '../../src/agent/report.ts';
import type { VolumeHealth } from '../../src/agent/state-types.ts';
import { MIB } from '../../src/base/units.ts';
import {
  at,
  CHUNKS,
  continuous,
  Driver,
  find,
  fresh,
  held,
  nothingHeld,
  SIZE,
  types,
} from './support/agent-driver.ts';

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
