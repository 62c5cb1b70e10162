/** The session's state machine: every phase x event, then the rules S1..S6 one by one. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { type IndexedEntry, wholeEntry, ZERO_ENTRY } from '../../src/model/entry.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { RecoveryPoint } from '../../src/model/replication.ts';
import type { Hello, WirePiece } from '../../src/protocol/messages.ts';
import { mustWait, reduceSession, startSession } from '../../src/staging/session-state.ts';
import {
  defaultLimits,
  type SessionEffect,
  type SessionEvent,
  type SessionState,
  type Spoken,
} from '../../src/staging/session-types.ts';
import { digestOf, rawPiece } from './support/messages.ts';

const A = 'aa'.repeat(16);
const B = 'bb'.repeat(16);
const counted = ['11'.repeat(32), '22'.repeat(32)];
const error = new UnderstudyError('ERR_CONNECTION_LOST', 'gone');

const hello: Hello = {
  type: 'hello',
  version: 1,
  server: 'web',
  hardwareId: 'h',
  bootId: 'b',
  agentVersion: '0',
  volumes: [
    {
      volume: '/a',
      sizeBytes: 10 * CHUNK_BYTES,
      sectorBytes: 512,
      generation: A,
      committedEpoch: 3,
      syncing: false,
    },
    {
      volume: '/b',
      sizeBytes: 4 * CHUNK_BYTES + 5000,
      sectorBytes: 512,
      generation: B,
      committedEpoch: 0,
      syncing: true,
    },
  ],
};
const said = (message: Spoken, frameBytes = 100): SessionEvent => ({
  type: 'message',
  message,
  frameBytes,
  digests: counted,
});
const positions = [
  { committed: { generation: A, epoch: 3, contentDigest: '33'.repeat(32) }, syncedChunks: 0 },
  { committed: null, syncedChunks: 2 },
];
const opened: SessionEvent = { type: 'opened', sessionId: 's', version: '0', positions };
const whole = (index: number, text: string): IndexedEntry => ({
  index,
  count: 1,
  entry: wholeEntry(digestOf(text)),
});
const offer = (seq: number, entries = [whole(0, 'x'), whole(1, 'y')], volume = 0): Spoken => ({
  type: 'offer',
  seq,
  volume,
  synced: 2,
  entries,
});
const patch = (seq: number, pieces: WirePiece[] = [rawPiece('p')], volume = 0): Spoken => ({
  type: 'patch',
  seq,
  volume,
  entries: [whole(3, 'p')],
  pieces,
});
const pieces = (seq: number, ...texts: string[]): Spoken => ({
  type: 'pieces',
  seq,
  pieces: texts.map(rawPiece),
});
const commit = (
  volumes = [{ volume: 0, generation: A, epoch: 4, contentDigest: counted[0]! }],
): Spoken => ({
  type: 'commit',
  timeMs: 1000,
  cut: { method: 'validated', passes: 1, durationMs: 1 },
  requestId: 'r',
  volumes,
});
const point: RecoveryPoint = {
  id: 'p1',
  server: 'web',
  time: '2026-01-01T00:00:00.000Z',
  cut: { method: 'validated', passes: 1, durationMs: 1 },
  volumes: [],
  missingVolumes: ['/b'],
};
const answered = (seq: number, ...need: number[]): SessionEvent => ({
  type: 'answered',
  seq,
  need: Uint8Array.from(need),
  changed: 7,
});

interface Run {
  state: SessionState;
  effects: SessionEffect[];
}
function run(...events: SessionEvent[]): Run {
  let state = startSession({ ...defaultLimits, unansweredOffers: 3 });
  let effects: SessionEffect[] = [];
  for (const event of events) {
    const step = reduceSession(state, event);
    state = step.state;
    effects = [...step.effects];
  }
  return { state, effects };
}
const begin = [said(hello), opened];
const kinds = (effects: readonly SessionEffect[]): string[] =>
  effects.map((effect) => (effect.type === 'send' ? `send ${effect.message.type}` : effect.type));
function refusal({ state, effects }: Run): string {
  expect(state.phase).toBe('ended');
  expect(kinds(effects)).toEqual(['end']);
  const [effect] = effects;
  return effect?.type === 'end' ? effect.error.code : '';
}

describe('every phase and event', () => {
  const phases: Record<string, SessionEvent[]> = {
    greeting: [],
    opening: [said(hello)],
    open: begin,
    ended: [{ type: 'failed', error }],
  };
  const events: Record<string, SessionEvent> = {
    arrived: { type: 'arrived', contentBytes: 10 },
    hello: said(hello),
    offer: said(offer(1)),
    patch: said(patch(1)),
    pieces: said(pieces(1, 'x')),
    commit: said(commit()),
    status: said({ type: 'status', volumes: [] }),
    refusal: said({ type: 'refusal', code: 'ERR_X', message: 'no' }),
    opened,
    answered: answered(1, 1, 0),
    durable: { type: 'durable' },
    'commit-done': { type: 'commit-done', outcome: { kind: 'committed', point } },
    'cut-wanted': { type: 'cut-wanted', requestId: 'r' },
    failed: { type: 'failed', error },
    disconnected: { type: 'disconnected', error },
  };
  const order = 'ended: end ERR_PROTOCOL_ORDER';
  const table: Record<string, Record<keyof typeof phases, string>> = {
    arrived: { greeting: 'greeting', opening: 'opening', open: 'open', ended: 'ended' },
    hello: { greeting: 'opening: open', opening: order, open: order, ended: 'ended' },
    offer: { greeting: order, opening: order, open: 'open: offer', ended: 'ended' },
    patch: { greeting: order, opening: order, open: 'open: patch, sync', ended: 'ended' },
    pieces: { greeting: order, opening: order, open: order, ended: 'ended' },
    commit: { greeting: order, opening: order, open: 'open: commit', ended: 'ended' },
    status: { greeting: order, opening: order, open: 'open: report', ended: 'ended' },
    refusal: {
      greeting: 'ended: end ERR_CONNECTION_CLOSED silently',
      opening: 'ended: end ERR_CONNECTION_CLOSED silently',
      open: 'ended: end ERR_CONNECTION_CLOSED silently',
      ended: 'ended',
    },
    opened: { greeting: 'greeting', opening: 'open: send welcome', open: 'open', ended: 'ended' },
    answered: { greeting: 'greeting', opening: 'opening', open: 'open', ended: 'ended' },
    durable: { greeting: 'greeting', opening: 'opening', open: 'open', ended: 'ended' },
    'commit-done': { greeting: 'greeting', opening: 'opening', open: 'open', ended: 'ended' },
    'cut-wanted': {
      greeting: 'greeting',
      opening: 'opening',
      open: 'open: send cut-request',
      ended: 'ended',
    },
    failed: {
      greeting: 'ended: end ERR_CONNECTION_LOST',
      opening: 'ended: end ERR_CONNECTION_LOST',
      open: 'ended: end ERR_CONNECTION_LOST',
      ended: 'ended',
    },
    disconnected: {
      greeting: 'ended: end ERR_CONNECTION_LOST silently',
      opening: 'ended: end ERR_CONNECTION_LOST silently',
      open: 'ended: end ERR_CONNECTION_LOST silently',
      ended: 'ended',
    },
  };
  const say = ({ state, effects }: Run): string => {
    const list = effects.map((effect) => {
      if (effect.type === 'send') return `send ${effect.message.type}`;
      if (effect.type !== 'end') return effect.type;
      return `end ${effect.error.code}${effect.isToldWhy ? '' : ' silently'}`;
    });
    return list.length === 0 ? state.phase : `${state.phase}: ${list.join(', ')}`;
  };

  it('the table is whole', () => {
    expect(Object.keys(table)).toEqual(Object.keys(events));
  });

  const cases = Object.entries(table).flatMap(([event, row]) =>
    Object.entries(row).map(([phase, wanted]) => [event, phase, wanted] as const),
  );
  it.each(cases)('%s while %s gives "%s"', (event, phase, wanted) => {
    const former = run(...phases[phase]!).state;
    expect(say(reduceSession(former, events[event]!) as Run)).toBe(wanted);
  });
});

describe('Hello', () => {
  it('of another version is refused, by name', () => {
    expect(refusal(run(said({ ...hello, version: 2 })))).toBe('ERR_PROTOCOL_VERSION');
  });

  it('without volumes is refused', () => {
    expect(refusal(run(said({ ...hello, volumes: [] })))).toBe('ERR_PROTOCOL_MESSAGE');
  });

  it('is answered with what the store holds, and the window', () => {
    const { effects } = run(...begin);
    expect(effects).toEqual([
      {
        type: 'send',
        message: {
          type: 'welcome',
          version: 1,
          stagingVersion: '0',
          sessionId: 's',
          windowBytes: defaultLimits.windowBytes,
          volumes: positions,
        },
      },
    ]);
  });
});

describe('batches', () => {
  it('are numbered without a gap, offers and patches together', () => {
    const { state } = run(...begin, said(offer(1)), said(patch(2)), said(offer(3)));
    expect(state.lastSeq).toBe(3);
    for (const seq of [0, 1, 2, 4, 5]) {
      const events = [said(offer(1)), said(patch(2)), said(offer(seq))];
      expect(refusal(run(...begin, ...events))).toBe('ERR_PROTOCOL_ORDER');
    }
  });

  it.each([offer(1, [whole(0, 'x')], 2), patch(1, [], 9)])(
    'of an unknown volume are refused',
    (message) => {
      expect(refusal(run(...begin, said(message)))).toBe('ERR_PROTOCOL_VOLUME');
    },
  );

  it('with entries beyond the volume are refused', () => {
    expect(refusal(run(...begin, said(offer(1, [whole(10, 'x')]))))).toBe('ERR_ENTRIES_INVALID');
    const run5: IndexedEntry[] = [{ index: 3, count: 3, entry: ZERO_ENTRY }];
    expect(refusal(run(...begin, said(offer(1, run5, 1))))).toBe('ERR_ENTRIES_INVALID');
  });

  it('with a cursor beyond the volume are refused', () => {
    const beyond = { ...offer(1), synced: 11 } as Spoken;
    expect(refusal(run(...begin, said(beyond)))).toBe('ERR_PROTOCOL_MESSAGE');
  });

  it('an offer goes to the store, and its answer back with the counts', () => {
    const { effects } = run(...begin, said(offer(1)), answered(1, 1, 0));
    expect(effects).toEqual([
      { type: 'send', message: { type: 'answer', seq: 1, need: Uint8Array.of(1, 0), changed: 7 } },
      { type: 'deduped', hits: 1, bytes: CHUNK_BYTES },
    ]);
  });

  it('what the answer "have" spares is counted by length, also of a short last chunk', () => {
    const { effects } = run(...begin, said(offer(1, [whole(4, 'tail')], 1)), answered(1, 0));
    expect(effects[1]).toEqual({ type: 'deduped', hits: 1, bytes: 5000 });
  });
});

describe('contents', () => {
  const asked = [...begin, said(offer(1)), answered(1, 1, 1)];

  it('of an answered offer go to the store', () => {
    const { effects } = run(...asked, said(pieces(1, 'x', 'y')));
    expect(kinds(effects)).toEqual(['pieces', 'sync']);
  });

  it('may come in several messages', () => {
    const first = run(...asked, said(pieces(1, 'y')));
    expect(kinds(first.effects)).toEqual(['pieces']);
    expect(
      kinds(reduceSession(first.state, said(pieces(1, 'x'))).effects as SessionEffect[]),
    ).toEqual(['pieces', 'sync']);
  });

  it.each<[string, SessionEvent[]]>([
    ['of no offer', [said(pieces(2, 'x'))]],
    ['of a patch', [said(patch(2)), said(pieces(2, 'p'))]],
    ['that were not asked for', [said(pieces(1, 'x', 'other'))]],
    ['that come twice', [said(pieces(1, 'x', 'y')), said(pieces(1, 'x'))]],
    ['that come twice in one message', [said(pieces(1, 'x', 'x'))]],
  ])('%s are refused', (_name, events) => {
    expect(refusal(run(...asked, ...events))).toBe('ERR_PROTOCOL_ORDER');
  });

  it('before the answer are refused', () => {
    expect(refusal(run(...begin, said(offer(1)), said(pieces(1, 'x'))))).toBe('ERR_PROTOCOL_ORDER');
  });
});

describe('stored', () => {
  const last = (...events: SessionEvent[]) => run(...begin, ...events);

  it('is said of all batches that share a sync, with their bytes', () => {
    const first = last(said(patch(1)), said(patch(2)), said(patch(3)), { type: 'durable' });
    expect(first.effects).toEqual([
      { type: 'send', message: { type: 'stored', seq: 1, bytes: 1 } },
      { type: 'sync' },
    ]);
    expect(reduceSession(first.state, { type: 'durable' }).effects).toEqual([
      { type: 'send', message: { type: 'stored', seq: 3, bytes: 2 } },
    ]);
  });

  it('waits for an earlier offer whose contents have not come', () => {
    const waiting = last(said(offer(1)), answered(1, 1, 0), said(patch(2)));
    expect(kinds(waiting.effects)).toEqual(['patch']);
    const filled = reduceSession(waiting.state, said(pieces(1, 'x')));
    expect(kinds(filled.effects as SessionEffect[])).toEqual(['pieces', 'sync']);
    expect(reduceSession(filled.state, { type: 'durable' }).effects).toEqual([
      { type: 'send', message: { type: 'stored', seq: 2, bytes: 2 } },
    ]);
  });

  it('is never said of what came after the sync was asked for', () => {
    const { effects } = last(said(patch(1)), said(patch(2)), { type: 'durable' });
    expect(effects[0]).toMatchObject({ message: { type: 'stored', seq: 1 } });
  });

  it('frees the window', () => {
    const { state } = last(
      { type: 'arrived', contentBytes: 1 },
      said(patch(1)),
      { type: 'arrived', contentBytes: 5 },
      { type: 'durable' },
    );
    expect(state.inFlightBytes).toBe(5);
  });
});

describe('the window', () => {
  it('ends a session that sends far more than it was granted', () => {
    const mib = 2 ** 20;
    const many = Array.from(
      { length: 21 },
      (): SessionEvent => ({ type: 'arrived', contentBytes: mib }),
    );
    expect(run(...begin, ...many.slice(1)).state.phase).toBe('open');
    expect(refusal(run(...begin, ...many))).toBe('ERR_PROTOCOL_WINDOW');
  });

  it('makes the network wait while too many offers are not answered', () => {
    const offers = [1, 2, 3].map((seq) => said(offer(seq)));
    expect(mustWait(run(...begin, ...offers.slice(1).map((_, i) => offers[i]!)).state)).toBe(false);
    const full = run(...begin, ...offers).state;
    expect(mustWait(full)).toBe(true);
    expect(mustWait(reduceSession(full, answered(1, 1, 1)).state)).toBe(false);
  });

  it('makes the network wait while what is complete is not durable', () => {
    const limits = { ...defaultLimits, waitingBatches: 2 };
    let state = startSession(limits);
    for (const event of [...begin, said(patch(1)), said(patch(2))])
      state = reduceSession(state, event).state;
    expect(mustWait(state)).toBe(true);
    expect(mustWait(reduceSession(state, { type: 'durable' }).state)).toBe(false);
  });

  it('makes the network wait for frames in memory, but never for contents that are still to come', () => {
    const heavy = 3 * 2 ** 20;
    const patches = [1, 2, 3, 4, 5, 6, 7].map((seq) => said(patch(seq), heavy));
    expect(mustWait(run(...begin, ...patches).state)).toBe(true);
    const offers = [1, 2].flatMap((seq) => [said(offer(seq), 20 * 2 ** 20), answered(seq, 1, 1)]);
    expect(mustWait(run(...begin, ...offers).state)).toBe(false);
  });
});

describe('a commit', () => {
  const at = (volume: number, generation: string, epoch: number, contentDigest: string) => [
    { volume, generation, epoch, contentDigest },
  ];

  it('goes to the store with the names of the volumes that are left out', () => {
    const { effects } = run(...begin, said(commit()));
    expect(effects).toMatchObject([
      { type: 'commit', request: { requestId: 'r', missingVolumes: ['/b'] } },
    ]);
  });

  it('of a first epoch is epoch 1', () => {
    const volumes = [...at(0, A, 4, counted[0]!), ...at(1, B, 1, counted[1]!)];
    expect(run(...begin, said(commit(volumes))).effects).toMatchObject([
      { type: 'commit', request: { missingVolumes: [] } },
    ]);
  });

  it.each([
    ['of an unknown volume', at(2, A, 4, counted[0]!), 'ERR_PROTOCOL_VOLUME'],
    ['of another generation', at(0, B, 4, counted[0]!), 'ERR_COMMIT_POSITION'],
    ['of an epoch too far', at(0, A, 5, counted[0]!), 'ERR_COMMIT_POSITION'],
    ['of an epoch before', at(0, A, 2, counted[0]!), 'ERR_COMMIT_POSITION'],
    ['of the last epoch with other contents', at(0, A, 3, counted[0]!), 'ERR_COMMIT_POSITION'],
    ['of epoch 0', at(1, B, 0, ''), 'ERR_COMMIT_POSITION'],
    ['of other entries than came', at(0, A, 4, '44'.repeat(32)), 'ERR_PROTOCOL_DIGEST'],
    [
      'of two volumes, one of them wrong',
      [...at(0, A, 4, counted[0]!), ...at(1, B, 2, counted[1]!)],
      'ERR_COMMIT_POSITION',
    ],
  ])('%s is refused', (_name, volumes, code) => {
    expect(refusal(run(...begin, said(commit(volumes))))).toBe(code);
  });

  it('that is repeated, as its answer was lost, goes to the store, which knows it', () => {
    const { effects } = run(...begin, said(commit(at(0, A, 3, '33'.repeat(32)))));
    expect(kinds(effects)).toEqual(['commit']);
  });

  it('before the contents of its volume have come is refused; of another volume not', () => {
    const waiting = [...begin, said(offer(1)), answered(1, 1, 1)];
    expect(refusal(run(...waiting, said(commit())))).toBe('ERR_PROTOCOL_ORDER');
    const other = run(...waiting, said(commit(at(1, B, 1, counted[1]!))));
    expect(kinds(other.effects)).toEqual(['commit']);
  });

  it('while another is open is refused, and so is a batch of its volume', () => {
    expect(refusal(run(...begin, said(commit()), said(commit())))).toBe('ERR_PROTOCOL_ORDER');
    expect(refusal(run(...begin, said(commit()), said(patch(1))))).toBe('ERR_PROTOCOL_ORDER');
    const other = run(...begin, said(commit()), said(patch(1, [], 1)));
    expect(kinds(other.effects)).toEqual(['patch', 'sync']);
  });

  it('that is done moves the position and is told', () => {
    const done = run(...begin, said(commit()), {
      type: 'commit-done',
      outcome: { kind: 'committed', point },
    });
    expect(kinds(done.effects)).toEqual(['committed', 'send committed']);
    expect(done.effects[1]).toMatchObject({
      message: { pointId: 'p1', volumes: [{ volume: 0, generation: A, epoch: 4 }] },
    });
    expect(done.state.volumes[0]).toMatchObject({ committedEpoch: 4, contentDigest: counted[0] });
    const next = reduceSession(done.state, said(commit(at(0, A, 5, counted[0]!))));
    expect(kinds(next.effects as SessionEffect[])).toEqual(['commit']);
  });

  it('that lacks chunks is told so; the position stays and it can come again', () => {
    const missing = [{ volume: 0, chunks: [1, 2], more: false }];
    const { state, effects } = run(...begin, said(commit()), {
      type: 'commit-done',
      outcome: { kind: 'missing', volumes: missing },
    });
    expect(effects).toEqual([{ type: 'send', message: { type: 'missing', volumes: missing } }]);
    expect(state.volumes[0]!.committedEpoch).toBe(3);
    expect(kinds(reduceSession(state, said(commit())).effects as SessionEffect[])).toEqual([
      'commit',
    ]);
  });
});

describe('status', () => {
  it('of an unknown volume is refused', () => {
    const volume = {
      volume: 2,
      state: 'continuous' as const,
      ...{
        backlogBytes: 0,
        syncedBytes: 0,
        totalBytes: 0,
        reason: '',
        missedCompletions: 0,
        suspectBlocks: 0,
      },
    };
    expect(refusal(run(...begin, said({ type: 'status', volumes: [volume] })))).toBe(
      'ERR_PROTOCOL_VOLUME',
    );
  });
});
