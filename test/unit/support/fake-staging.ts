/**
 * A staging service in a few lines, kept in memory, to test the agent against: it checks what the protocol
 * promises (order, window, digests), keeps epochs, and gives back the images of its points. Tests make it
 * forget acknowledgements, ask for chunks again, or lose what it holds.
 */
import { createHash } from 'node:crypto';
import { uncompressSync } from 'lz4-napi';
import { type ChunkEntry, compose, type IndexedEntry, isTotal } from '../../../src/model/entry.ts';
import { encodeEntries } from '../../../src/model/entry-codec.ts';
import {
  BLOCK_BYTES,
  blocksInChunk,
  CHUNK_BYTES,
  chunkCount,
  chunkLength,
} from '../../../src/model/geometry.ts';
import type { MachineReport } from '../../../src/model/machine.ts';
import { decodeMessage, encodeMessage } from '../../../src/protocol/codec.ts';
import { EpochDigests } from '../../../src/protocol/epoch-digests.ts';
import type {
  Commit,
  Hello,
  Message,
  Offer,
  Patch,
  StagingMessage,
  Status,
  WirePiece,
} from '../../../src/protocol/messages.ts';
import type { Connection, ConnectionHandlers } from '../../../src/transport/types.ts';

interface HeldVolume {
  generation: string;
  sizeBytes: number;
  committed: { generation: string; epoch: number; contentDigest: string } | null;
  map: Map<number, ChunkEntry>;
  open: Map<number, ChunkEntry>;
  synced: number;
}
export interface FakePoint {
  readonly timeMs: number;
  readonly requestId: string;
  readonly method: string;
  readonly images: Map<string, Uint8Array>;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class FakeStaging {
  windowBytes = 2 ** 20;
  readonly held = new Map<string, HeldVolume>();
  readonly contents = new Map<string, Uint8Array>();
  readonly points: FakePoint[] = [];
  readonly hellos: Hello[] = [];
  readonly statuses: Status[] = [];
  readonly machines: MachineReport[] = [];
  /** What happened, by name of message. */
  readonly counts: Record<string, number> = {};
  receivedPieceBytes = 0;
  maxInFlightBytes = 0;
  /** Answers to commits are lost, with the connection, this many times; the commit is done all the same. */
  loseAnswers = 0;
  /** Chunks to be named as missing at the next commit. */
  missing: number[] = [];
  /** Holds `stored` back. */
  isSlow = false;
  /** Swallows commits. */
  isStuck = false;
  /** Refuses a session with this code. */
  refusal = '';
  private connection: Connection | null = null;
  private names: string[] = [];
  private lastSeq = 0;
  private inFlight: { seq: number; bytes: number }[] = [];
  private readonly open = new Map<number, number>();
  private readonly digests = new EpochDigests();

  accept(connect: (handlers: ConnectionHandlers) => Connection): void {
    this.connection?.abort();
    this.lastSeq = 0;
    this.inFlight = [];
    this.open.clear();
    this.digests.clear();
    const isCurrent = () => connection === this.connection;
    const connection = connect({
      onOpen: () => undefined,
      onDrained: () => undefined,
      onMessage: (frame) => {
        if (isCurrent()) this.handle(decodeMessage(frame));
      },
      onClosed: () => {
        if (isCurrent()) this.connection = null;
      },
    });
    this.connection = connection;
  }

  say(message: StagingMessage): void {
    this.connection?.send(encodeMessage(message));
  }

  /** Ends the session from this side. */
  cutOff(): void {
    this.connection?.abort();
    this.connection = null;
  }

  /** Tells what is durable now. */
  store(): void {
    const waiting = Math.min(...this.open.keys(), Number.POSITIVE_INFINITY);
    const done = this.inFlight.filter(({ seq }) => seq < waiting);
    this.inFlight = this.inFlight.filter(({ seq }) => seq >= waiting);
    const last = done.at(-1);
    if (last === undefined) return;
    this.say({ type: 'stored', seq: last.seq, bytes: done.reduce((sum, d) => sum + d.bytes, 0) });
  }

  image(name: string): Uint8Array {
    const volume = this.held.get(name)!;
    const image = new Uint8Array(volume.sizeBytes);
    for (const [index, entry] of volume.map) this.paint(image, index, entry);
    return image;
  }

  private paint(image: Uint8Array, index: number, entry: ChunkEntry): void {
    const at = index * CHUNK_BYTES;
    const put = (piece: Uint8Array | 'zero' | null, to: number, length: number) => {
      if (piece === null) return;
      if (piece === 'zero') image.fill(0, to, to + length);
      else image.set(this.contents.get(hex(piece))!, to);
    };
    put(entry.whole, at, chunkLength(index, image.length));
    let next = 0;
    for (let block = 0; block < 16; block += 1) {
      if ((entry.mask & (1 << block)) === 0) continue;
      const to = at + block * BLOCK_BYTES;
      put(entry.blocks[next]!, to, Math.min(BLOCK_BYTES, image.length - to));
      next += 1;
    }
  }

  private handle(message: Message): void {
    this.counts[message.type] = (this.counts[message.type] ?? 0) + 1;
    switch (message.type) {
      case 'hello':
        this.greet(message);
        break;
      case 'offer':
        this.offered(message);
        break;
      case 'patch':
        this.patched(message);
        break;
      case 'pieces':
        this.keep(message.seq, message.pieces);
        this.open.delete(message.seq);
        this.settle();
        break;
      case 'commit':
        this.commit(message);
        break;
      case 'status':
        this.statuses.push(message);
        break;
      case 'machine':
        this.machines.push(message.report);
        break;
      case 'ping':
        this.say({ type: 'pong', id: message.id });
        break;
      case 'pong':
      case 'refusal':
        break;
      default:
        throw new Error(`an agent does not say ${message.type}`);
    }
  }

  private greet(hello: Hello): void {
    this.hellos.push(hello);
    if (this.refusal !== '') {
      this.say({ type: 'refusal', code: this.refusal, message: 'refused' });
      return;
    }
    this.names = hello.volumes.map((each) => each.volume);
    for (const { volume, generation, sizeBytes } of hello.volumes) {
      const held = this.held.get(volume);
      if (held?.generation === generation && held.sizeBytes === sizeBytes) continue;
      this.held.set(volume, {
        generation,
        sizeBytes,
        committed: held?.committed ?? null,
        map: held?.map ?? new Map(),
        open: new Map(),
        synced: 0,
      });
    }
    const volumes = this.names.map((name) => {
      const { committed, synced } = this.held.get(name)!;
      return { committed, syncedChunks: synced };
    });
    const windowBytes = this.windowBytes;
    const identity = { version: 1, stagingVersion: 'fake', sessionId: 's' };
    this.say({ type: 'welcome', ...identity, windowBytes, volumes });
  }

  private take(seq: number, volume: number, entries: readonly IndexedEntry[]): HeldVolume {
    if (seq !== this.lastSeq + 1) throw new Error(`batch ${seq} after ${this.lastSeq}`);
    this.lastSeq = seq;
    const held = this.held.get(this.names[volume]!)!;
    this.digests.add(volume, encodeEntries(entries));
    for (const { index, count, entry } of entries) {
      for (let i = index; i < index + count; i += 1) {
        held.open.set(i, compose(held.open.get(i), entry));
      }
    }
    return held;
  }

  private offered(offer: Offer): void {
    const held = this.take(offer.seq, offer.volume, offer.entries);
    held.synced = Math.max(held.synced, offer.synced);
    const wholes = offer.entries.flatMap(({ entry }) =>
      entry.whole instanceof Uint8Array ? [entry.whole] : [],
    );
    const need = Uint8Array.from(wholes, (whole) => (this.contents.has(hex(whole)) ? 0 : 1));
    this.inFlight.push({ seq: offer.seq, bytes: 0 });
    if (need.includes(1)) this.open.set(offer.seq, 1);
    this.say({ type: 'answer', seq: offer.seq, need, changed: 0 });
    this.settle();
  }

  private patched(patch: Patch): void {
    this.take(patch.seq, patch.volume, patch.entries);
    this.inFlight.push({ seq: patch.seq, bytes: 0 });
    this.keep(patch.seq, patch.pieces);
    this.settle();
  }

  private keep(seq: number, pieces: readonly WirePiece[]): void {
    const batch = this.inFlight.find((each) => each.seq === seq)!;
    for (const { digest, codec, stored, rawLength } of pieces) {
      const content = codec === 1 ? uncompressSync(stored) : Buffer.from(stored);
      if (content.length !== rawLength) throw new Error('length of a content');
      if (createHash('sha256').update(content).digest('hex') !== hex(digest)) {
        throw new Error('a content is not what its name says');
      }
      this.contents.set(hex(digest), content);
      batch.bytes += stored.length;
      this.receivedPieceBytes += stored.length;
    }
    const sum = this.inFlight.reduce((total, each) => total + each.bytes, 0);
    this.maxInFlightBytes = Math.max(this.maxInFlightBytes, sum);
  }

  private settle(): void {
    if (!this.isSlow) this.store();
  }

  private commit(commit: Commit): void {
    if (this.isStuck) return;
    const volumes = commit.volumes.map((each) => ({
      ...each,
      held: this.held.get(this.names[each.volume]!)!,
    }));
    for (const { volume, generation, epoch, contentDigest, held } of volumes) {
      const last = held.committed?.generation === generation ? held.committed.epoch : 0;
      if (held.generation !== generation || epoch !== last + 1) throw new Error('wrong position');
      if (contentDigest !== this.digests.current(volume)) throw new Error('wrong content digest');
    }
    const lacking = volumes.flatMap((each) => {
      const chunks = [...this.missing, ...this.holes(each.held, each.epoch)];
      return chunks.length > 0 ? [{ volume: each.volume, chunks, more: false }] : [];
    });
    this.missing = [];
    if (lacking.length > 0) {
      this.say({ type: 'missing', volumes: lacking });
      return;
    }
    for (const { volume, generation, epoch, contentDigest, held } of volumes) {
      if (epoch === 1) held.map = new Map();
      for (const [index, entry] of held.open) {
        held.map.set(index, compose(held.map.get(index), entry));
      }
      held.open.clear();
      held.committed = { generation, epoch, contentDigest };
      this.digests.restart(volume);
    }
    const names = volumes.map(({ volume }) => this.names[volume]!);
    this.points.push({
      timeMs: commit.timeMs,
      requestId: commit.requestId,
      method: commit.cut.method,
      images: new Map(names.map((name) => [name, this.image(name)])),
    });
    if (this.loseAnswers > 0) {
      this.loseAnswers -= 1;
      this.cutOff();
      return;
    }
    const pointId = `p${this.points.length}`;
    const epochs = volumes.map(({ volume, generation, epoch }) => ({ volume, generation, epoch }));
    this.say({ type: 'committed', pointId, volumes: epochs });
  }

  /** Chunks whose content is not known. */
  private holes(held: HeldVolume, epoch: number): number[] {
    const lacking: number[] = [];
    for (let index = 0; index < chunkCount(held.sizeBytes); index += 1) {
      const older = epoch === 1 ? undefined : held.map.get(index);
      const newer = held.open.get(index);
      const entry = newer === undefined ? older : compose(older, newer);
      const isKnown =
        entry !== undefined &&
        isTotal(entry, blocksInChunk(index, held.sizeBytes)) &&
        [entry.whole, ...entry.blocks].every(
          (piece) => !(piece instanceof Uint8Array) || this.contents.has(hex(piece)),
        );
      if (!isKnown) lacking.push(index);
    }
    return lacking;
  }
}
