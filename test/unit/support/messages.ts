/** One message of every type, full of distinct values, and generators of arbitrary ones. */
import { hash } from 'node:crypto';
import type { IndexedEntry, Piece } from '../../../src/model/entry.ts';
import { ZERO_ENTRY } from '../../../src/model/entry.ts';
import { bootModes, severities } from '../../../src/model/machine.ts';
import { type CutMethod, replicationStates } from '../../../src/model/replication.ts';
import type { Message, WirePiece } from '../../../src/protocol/messages.ts';
import fc from './properties.ts';

export const digestOf = (text: string): Uint8Array =>
  new Uint8Array(hash('sha256', text, 'buffer'));
const hexOf = (text: string): string => hash('sha256', text, 'hex');

export const rawPiece = (text: string): WirePiece => ({
  digest: digestOf(text),
  codec: 0,
  rawLength: Buffer.byteLength(text),
  stored: new Uint8Array(Buffer.from(text)),
});

const generation = '00112233445566778899aabbccddeeff';
const entries: IndexedEntry[] = [
  { index: 0, count: 1, entry: { whole: digestOf('a'), mask: 0, blocks: [] } },
  { index: 1, count: 300, entry: ZERO_ENTRY },
  { index: 70_000, count: 1, entry: { whole: digestOf('b'), mask: 0, blocks: [] } },
];
const patchEntries: IndexedEntry[] = [
  ...entries,
  {
    index: 70_001,
    count: 1,
    entry: {
      whole: null,
      mask: 0b1000_0000_0000_0101,
      blocks: [digestOf('c'), 'zero', digestOf('d')],
    },
  },
];

/** By type, for the golden bytes. Never change one: add. */
export const samples: readonly Message[] = [
  {
    type: 'hello',
    version: 1,
    server: 'web-1',
    hardwareId: hexOf('hardware'),
    bootId: '0f8fad5b-d9cb-469f-a165-70867728950e',
    agentVersion: '0.1.0',
    volumes: [
      {
        volume: '/dev/vda',
        sizeBytes: 2 ** 40,
        sectorBytes: 512,
        generation,
        committedEpoch: 7,
        syncing: false,
      },
      {
        volume: '/dev/Ä',
        sizeBytes: 4096,
        sectorBytes: 4096,
        generation,
        committedEpoch: 0,
        syncing: true,
      },
    ],
  },
  {
    type: 'welcome',
    version: 1,
    stagingVersion: '0.1.0',
    sessionId: 'session-1',
    windowBytes: 16 * 2 ** 20,
    volumes: [
      { committed: { generation, epoch: 7, contentDigest: hexOf('content') }, syncedChunks: 0 },
      { committed: null, syncedChunks: 4711 },
    ],
  },
  { type: 'offer', seq: 1, volume: 1, synced: 70_001, entries },
  { type: 'answer', seq: 1, need: Uint8Array.of(1, 0, 0, 1, 0, 0, 0, 0, 1), changed: 5 },
  {
    type: 'patch',
    seq: 2,
    volume: 0,
    entries: patchEntries,
    pieces: [rawPiece('c'), rawPiece('d')],
  },
  {
    type: 'pieces',
    seq: 1,
    pieces: [
      rawPiece('a'),
      {
        digest: digestOf('b'),
        codec: 1,
        rawLength: 64,
        stored: Uint8Array.of(64, 0, 0, 0, 1, 2, 3),
      },
    ],
  },
  { type: 'stored', seq: 2, bytes: 123_456 },
  {
    type: 'commit',
    timeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    cut: { method: 'validated', passes: 3, durationMs: 12.5 },
    requestId: 'request-1',
    volumes: [
      { volume: 0, generation, epoch: 8, contentDigest: hexOf('epoch') },
      { volume: 1, generation, epoch: 1, contentDigest: hexOf('other') },
    ],
  },
  {
    type: 'committed',
    pointId: '20260102T030405.678Z-1f2e3d4c',
    volumes: [{ volume: 0, generation, epoch: 8 }],
  },
  {
    type: 'missing',
    volumes: [
      { volume: 0, chunks: [1, 2, 70_000], more: true },
      { volume: 1, chunks: [], more: false },
    ],
  },
  { type: 'cut-request', requestId: 'request-1' },
  {
    type: 'status',
    volumes: [
      {
        volume: 0,
        state: 'continuous',
        backlogBytes: 4096,
        syncedBytes: 2 ** 40,
        totalBytes: 2 ** 40,
        reason: '',
        missedCompletions: 2,
        suspectBlocks: 3,
      },
      {
        volume: 1,
        state: 'stalled',
        backlogBytes: 0,
        syncedBytes: 0,
        totalBytes: 4096,
        reason: 'vanished: ENODEV',
        missedCompletions: 0,
        suspectBlocks: 0,
      },
    ],
  },
  { type: 'ping', id: 1 },
  { type: 'pong', id: 0xffffffff },
  { type: 'refusal', code: 'ERR_PROTOCOL_VERSION', message: 'version 2 is not spoken here' },
  {
    type: 'machine',
    report: {
      timeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
      architecture: 'x86_64',
      kernel: '6.1.0-9-amd64',
      system: 'Debian GNU/Linux 12 (bookworm)',
      bootMode: 'uefi',
      cpuCount: 4,
      memoryBytes: 2 ** 33,
      bootVolume: '/dev/vda',
      findings: [
        {
          code: 'root-name',
          severity: 'blocks-boot',
          subject: '/boot/grub/grub.cfg',
          seen: 'root=/dev/sda1',
          action: 'use root=UUID=...',
        },
        { code: 'tracker-ready', severity: 'fine', subject: '', seen: 'Linux 6.1', action: '' },
      ],
    },
  },
];

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const digest = bytes(32);
const hex = (length: number) => bytes(length).map((b) => Buffer.from(b).toString('hex'));
const u16 = fc.nat({ max: 0xffff });
const u32 = fc.nat({ max: 0xffffffff });
const u64 = fc.maxSafeNat();
const word = fc.string({ maxLength: 32, unit: 'grapheme' });
const millis = fc.double({ min: 0, max: 1e9, noNaN: true }).map((value) => value + 0);

const piece: fc.Arbitrary<Piece> = fc.oneof(digest, fc.constant<Piece>('zero'));
const entryOf = (isOffer: boolean) =>
  fc
    .record({
      whole: piece,
      mask: isOffer ? fc.constant(0) : u16,
      withWhole: fc.boolean(),
      seed: digest,
    })
    .map(({ whole, mask, withWhole, seed }) => {
      const count = [...mask.toString(2)].filter((bit) => bit === '1').length;
      const blocks = Array.from(
        { length: count },
        (_, i): Piece => (seed[i]! < 60 ? 'zero' : seed),
      );
      return { whole: mask === 0 || withWhole ? whole : null, mask, blocks };
    });
/** Ascending, as canonical lists are: neighbouring zero runs never occur. */
const entriesOf = (isOffer: boolean): fc.Arbitrary<IndexedEntry[]> =>
  fc
    .array(
      fc.record({ gap: fc.nat({ max: 1000 }), run: fc.nat({ max: 500 }), entry: entryOf(isOffer) }),
      { maxLength: 12 },
    )
    .map((items) => {
      let at = 0;
      return items.map(({ gap, run, entry }) => {
        const index = at + gap + 1;
        const count = entry.whole === 'zero' && entry.mask === 0 ? run + 1 : 1;
        at = index + count;
        return { index, count, entry };
      });
    });
const wirePieces: fc.Arbitrary<WirePiece[]> = fc.array(
  fc
    .record({
      digest,
      stored: fc.uint8Array({ minLength: 5, maxLength: 200 }),
      extra: fc.nat({ max: 60_000 }),
    })
    .map(
      ({ digest: name, stored, extra }): WirePiece => ({
        digest: name,
        codec: extra === 0 ? 0 : 1,
        rawLength: stored.length + extra,
        stored,
      }),
    ),
  { maxLength: 6 },
);
const uniqueBy = <T>(items: T[], key: (item: T) => unknown): T[] =>
  items.filter((item, i) => items.findIndex((other) => key(other) === key(item)) === i);

const helloVolume = fc.record({
  volume: fc.string({ minLength: 1, maxLength: 40 }),
  sizeBytes: fc.integer({ min: 1, max: 2 ** 46 }),
  sectorBytes: fc.constantFrom(512, 4096),
  generation: hex(16),
  committedEpoch: u64,
  syncing: fc.boolean(),
});
const commitVolume = fc.record({
  volume: u16,
  generation: hex(16),
  epoch: u64,
  contentDigest: hex(32),
});
const cut = fc.record({
  method: fc.constantFrom<CutMethod>('validated', 'scan', 'frozen', 'logged'),
  passes: u32,
  durationMs: millis,
});
const volumeStatus = fc.record({
  volume: u16,
  state: fc.constantFrom(...replicationStates),
  backlogBytes: u64,
  syncedBytes: u64,
  totalBytes: u64,
  reason: word,
  missedCompletions: u64,
  suspectBlocks: u64,
});

const machineReport = fc.record({
  timeMs: fc.nat({ max: 8.64e15 }),
  architecture: word,
  kernel: word,
  system: word,
  bootMode: fc.constantFrom(...bootModes),
  cpuCount: u32,
  memoryBytes: u64,
  bootVolume: word,
  findings: fc.array(
    fc.record({
      code: word,
      severity: fc.constantFrom(...severities),
      subject: word,
      seen: word,
      action: word,
    }),
    { maxLength: 5 },
  ),
});

/** Any message that may be said. */
export const anyMessage: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    type: fc.constant('hello' as const),
    version: u16,
    server: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/),
    hardwareId: word,
    bootId: word,
    agentVersion: word,
    volumes: fc
      .array(helloVolume, { maxLength: 4 })
      .map((all) => uniqueBy(all, (each) => each.volume)),
  }),
  fc.record({
    type: fc.constant('welcome' as const),
    version: u16,
    stagingVersion: word,
    sessionId: word,
    windowBytes: fc.integer({ min: 1, max: 2 ** 30 }),
    volumes: fc.array(
      fc.record({
        committed: fc.option(
          fc.record({ generation: hex(16), epoch: u64, contentDigest: hex(32) }),
        ),
        syncedChunks: u32,
      }),
      { maxLength: 4 },
    ),
  }),
  fc.record({
    type: fc.constant('offer' as const),
    seq: u32,
    volume: u16,
    synced: u32,
    entries: entriesOf(true),
  }),
  fc.record({
    type: fc.constant('answer' as const),
    seq: u32,
    need: fc.array(fc.nat({ max: 1 }), { maxLength: 70 }).map((bits) => Uint8Array.from(bits)),
    changed: u32,
  }),
  fc.record({
    type: fc.constant('patch' as const),
    seq: u32,
    volume: u16,
    entries: entriesOf(false),
    pieces: wirePieces,
  }),
  fc.record({ type: fc.constant('pieces' as const), seq: u32, pieces: wirePieces }),
  fc.record({ type: fc.constant('stored' as const), seq: u32, bytes: u64 }),
  fc.record({
    type: fc.constant('commit' as const),
    timeMs: fc.nat({ max: 8.64e15 }),
    cut,
    requestId: word,
    volumes: fc
      .array(commitVolume, { minLength: 1, maxLength: 4 })
      .map((all) => uniqueBy(all, (each) => each.volume)),
  }),
  fc.record({
    type: fc.constant('committed' as const),
    pointId: word,
    volumes: fc.array(fc.record({ volume: u16, generation: hex(16), epoch: u64 }), {
      maxLength: 4,
    }),
  }),
  fc.record({
    type: fc.constant('missing' as const),
    volumes: fc.array(
      fc.record({ volume: u16, more: fc.boolean(), chunks: fc.array(u32, { maxLength: 9 }) }),
      {
        maxLength: 4,
      },
    ),
  }),
  fc.record({ type: fc.constant('cut-request' as const), requestId: word }),
  fc.record({
    type: fc.constant('status' as const),
    volumes: fc.array(volumeStatus, { maxLength: 4 }),
  }),
  fc.record({ type: fc.constantFrom('ping' as const, 'pong' as const), id: u32 }),
  fc.record({ type: fc.constant('machine' as const), report: machineReport }),
  fc.record({ type: fc.constant('refusal' as const), code: word, message: word }),
);
