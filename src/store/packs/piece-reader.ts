/**
 * Reads pieces back: neighbours in a pack with one call, every content checked against its digest (P3).
 * On a disk that is far away many calls are under way at a time, and what lies farther apart is joined, up
 * to a bound on the memory; contents are handed out, and damage is told, in the order of one after the other.
 * A hostile or damaged length never allocates: the length before LZ4 data must equal the raw length that
 * the index knows, which is at most a chunk.
 */
import type { FarReads } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { inOrder } from '../../base/in-order.ts';
import type { Log } from '../../base/log.ts';
import { toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { type PackSeal, plainSeal } from '../keys/pack-seal.ts';
import type { Copies } from './copies.ts';
import type { DamageNotes } from './damage-notes.ts';
import type { TableEntry } from './digest-table.ts';
import type { FileCache } from './file-cache.ts';
import type { PackTable } from './pack-table.ts';
import { openPiece, unsealPiece } from './piece.ts';
import type { PieceIndex } from './piece-index.ts';
import { ReadGate } from './read-gate.ts';
import { PIECE_HEADER_BYTES } from './record.ts';

/** Holes up to `gap` are read along; runs are no longer than `run`. */
interface Joining {
  readonly gap: number;
  readonly run: number;
}
const NEAR: Joining = { gap: 32 * 1024, run: 2 * 1024 * 1024 };
/** A unit of reading ahead with the headers of its records is one request. */
const FAR: Joining = { gap: 128 * 1024, run: (2 * 1024 + 64) * 1024 };

interface Run {
  readonly pack: number;
  readonly start: number;
  end: number;
  readonly members: number[];
}

interface ReadRun {
  /** From the start of the run; fewer than it has where the pack is cut short. */
  readonly bytes: Uint8Array;
  readonly seal: PackSeal;
}

/** A run that was read. No bytes, and the error, where the pack cannot be read. */
interface TriedRun extends ReadRun {
  readonly run: Run;
  readonly failure: UnderstudyError | null;
  /** To be called once the bytes are used. */
  readonly release: () => void;
}

const nothingRead = { bytes: new Uint8Array(0), seal: plainSeal, failure: null };

/** Groups places of pieces into runs that are read with one call each; `lead`: bytes before a body. */
function planRuns(places: readonly TableEntry[], lead: number, { gap, run: most }: Joining): Run[] {
  const order = places.map((_, i) => i);
  order.sort((a, b) => {
    const left = places[a]!;
    const right = places[b]!;
    return left.pack - right.pack || left.offset - right.offset;
  });
  const runs: Run[] = [];
  for (const i of order) {
    const { pack, offset, storedLength } = places[i]!;
    const start = offset - lead;
    const end = offset + storedLength;
    const run = runs.at(-1);
    const joins =
      run !== undefined && run.pack === pack && start <= run.end + gap && end - run.start <= most;
    if (joins) {
      run.end = Math.max(run.end, end);
      run.members.push(i);
    } else {
      runs.push({ pack, start, end, members: [i] });
    }
  }
  return runs;
}

export class PieceReader {
  private readonly files: FileCache;
  private readonly packs: PackTable;
  private readonly index: Pick<PieceIndex, 'find'>;
  private readonly copies: Copies;
  private readonly log: Log;
  private readonly damage: DamageNotes;
  private readonly far: FarReads | null;
  private readonly gate: ReadGate;

  constructor(given: {
    readonly files: FileCache;
    readonly packs: PackTable;
    readonly index: Pick<PieceIndex, 'find'>;
    readonly copies: Copies;
    readonly log: Log;
    readonly damage: DamageNotes;
    readonly far: FarReads | null;
  }) {
    this.files = given.files;
    this.packs = given.packs;
    this.index = given.index;
    this.copies = given.copies;
    this.log = given.log;
    this.damage = given.damage;
    this.far = given.far;
    this.gate = new ReadGate(given.far);
  }

  /** Where each content lies; null where no pack has it, whatever the index says. */
  async locate(digests: readonly Uint8Array[]): Promise<(TableEntry | null)[]> {
    const places: (TableEntry | null)[] = [];
    for (const digest of digests) places.push(await this.index.find(digest));
    const missed = digests.filter((_, i) => places[i] === null);
    if (missed.length === 0) return places;
    const found = await this.copies.search(missed);
    return places.map((place, i) => place ?? found.get(toHex(digests[i]!))?.[0] ?? null);
  }

  /**
   * Hands each content to `use` (with the index of its place), in no given order. One that is not what
   * its digest says is taken from another place. ERR_PIECE_DAMAGED, with {digest, path}, where there is
   * none, or the error that reading had met. Once `isWanted` says no, no more is read, and this rejects.
   */
  async read(
    places: readonly TableEntry[],
    use: (index: number, content: Uint8Array) => void,
    isWanted: () => boolean = () => true,
  ): Promise<void> {
    const runs = planRuns(places, this.lead, this.far === null ? NEAR : FAR);
    const call = { isOver: false };
    const tried = inOrder(
      runs,
      this.far?.requests ?? 1,
      (run) => this.inTurn(run, call, isWanted),
      ({ release }) => release(),
    );
    try {
      for await (const read of tried) await this.useRun(read, places, use);
    } finally {
      call.isOver = true;
    }
  }

  /** True where the content is right at this very place. */
  async isRightAt(place: TableEntry): Promise<boolean> {
    return (await this.readOne(place)) !== null;
  }

  private async useRun(
    read: TriedRun,
    places: readonly TableEntry[],
    use: (index: number, content: Uint8Array) => void,
  ): Promise<void> {
    const { run, failure } = read;
    try {
      for (const i of run.members) {
        const place = places[i]!;
        const content = this.opened(read, run.start, place);
        const right = content ?? (await this.fromElsewhere(place));
        if (right === null && failure === null) this.damage.note(place.pack, place.digest);
        if (right === null) throw failure ?? this.damaged(place);
        use(i, right);
      }
    } finally {
      read.release();
    }
  }

  /** Reads a run when there is room for it; not where the call has failed meanwhile. */
  private async inTurn(
    run: Run,
    call: { readonly isOver: boolean },
    isWanted: () => boolean,
  ): Promise<TriedRun> {
    const release = await this.gate.take(run.end - run.start);
    try {
      if (!isWanted()) throw new UnderstudyError('ERR_STORE_CLOSED', 'it is not wanted any more');
      return { run, release, ...(call.isOver ? nothingRead : await this.tryRun(run)) };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Waits for no room: whoever has come so far may hold what others wait for. */
  private async readOne(place: TableEntry): Promise<Uint8Array | null> {
    const { pack, offset, storedLength } = place;
    const run = { pack, start: offset - this.lead, end: offset + storedLength, members: [0] };
    return this.opened(await this.tryRun(run), run.start, place);
  }

  /** So many bytes before a body are read with it. */
  private get lead(): number {
    return this.files.vault.keys === null ? 0 : PIECE_HEADER_BYTES;
  }

  private opened({ bytes, seal }: ReadRun, start: number, place: TableEntry): Uint8Array | null {
    const read = bytes.subarray(place.offset - seal.lead - start);
    return openPiece(unsealPiece(read, seal, place), place, this.files.vault.names);
  }

  /** The content by another copy of it; null where none is right. */
  private async fromElsewhere(place: TableEntry): Promise<Uint8Array | null> {
    const known = await this.index.find(place.digest);
    const moved = known !== null && known.pack !== place.pack ? [known] : [];
    const content = await this.firstRight(moved);
    if (content !== null) return content;
    const path = this.packs.byNumber(place.pack)?.path;
    // The same pack counts where it lies elsewhere by now: it was a segment when it was looked up.
    const isOther = ({ pack }: TableEntry) => this.packs.byNumber(pack)?.path !== path;
    const found = await this.firstRight((await this.copies.besides(place)).filter(isOther));
    if (found === null) return null;
    const digest = toHex(place.digest);
    this.log.warn('a content cannot be read; another copy of it is used', { path, digest });
    return found;
  }

  private async firstRight(places: readonly TableEntry[]): Promise<Uint8Array | null> {
    for (const place of places) {
      const content = await this.readOne(place);
      if (content !== null) return content;
    }
    return null;
  }

  /** No bytes, and the error, where the pack cannot be read. */
  private async tryRun(run: Run): Promise<Omit<TriedRun, 'run' | 'release'>> {
    try {
      return { ...(await this.readRun(run)), failure: null };
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return { ...nothingRead, failure: error };
    }
  }

  private async readRun(run: Run): Promise<ReadRun> {
    const info = this.packs.byNumber(run.pack);
    if (info === null)
      throw new UnderstudyError('ERR_PIECE_MISSING', 'the pack of a piece is gone');
    const bytes = new Uint8Array(run.end - run.start);
    try {
      return await this.files.with(info.path, async (file) => {
        const seal = await this.files.vault.sealOf(file);
        return { bytes: bytes.subarray(0, await file.read(bytes, run.start)), seal };
      });
    } catch (error) {
      // A segment has moved into the repository since its path was looked up: once more.
      const path = this.packs.byNumber(run.pack)?.path;
      if (path === undefined || path === info.path) throw error;
      return this.readRun(run);
    }
  }

  private damaged(place: TableEntry): UnderstudyError {
    const path = this.packs.byNumber(place.pack)?.path ?? 'a pack that is gone';
    const digest = toHex(place.digest);
    const message = `${path}: the content of ${digest} is damaged`;
    return new UnderstudyError('ERR_PIECE_DAMAGED', message, { path, digest, at: place.offset });
  }
}
