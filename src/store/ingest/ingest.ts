/**
 * One server's session: records what arrives in the order of the calls (P4: nothing is acknowledged
 * before it is durable; nothing uncommitted is visible). Every call goes through the server's mutex;
 * state in memory changes only after the journal has the record, so that a replay gives the same state.
 *
 * A content is said to be held only where it is held and this server has sent it itself, or one that is
 * declared to be of its dedupe domain: an offer must not tell what another server stores (P8).
 *
 * A call that fails ends the session: what follows it would lie over a hole. Commits are commit.ts's.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { IndexedEntry, Piece } from '../../model/entry.ts';
import { checkEntriesWithin, decodeEntries, encodeEntries } from '../../model/entry-codec.ts';
import { DIGEST_BYTES, MAX_VOLUME_BYTES } from '../../model/geometry.ts';
import { type Core, type ServerState, volumeState } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { type Names, plainNames } from '../format/names.ts';
import { discard } from '../format/object-file.ts';
import { OpenEpoch } from '../journal/open-epoch.ts';
import { listMaps } from '../maps/chain.ts';
import {
  encodeCursorRecord,
  encodeEntriesRecord,
  HANDLE_BYTES,
  MAX_BODY_BYTES,
  MAX_PIECE_BYTES,
} from '../packs/record.ts';
import { type Batch, emptyBatch } from '../packs/segment.ts';
import type {
  CommitOutcome,
  CommitRequest,
  Ingest,
  VerifiedPiece,
  VolumeDescription,
  VolumePosition,
} from '../types.ts';
import { Arrivals } from './arrivals.ts';
import { commitEpochs } from './commit.ts';
import { isSameEpoch, openEpoch, openName, type SessionVolume } from './session-volume.ts';
import { spillWhereLarge } from './spill.ts';
import { VolumeView } from './volume-view.ts';

const MAX_VOLUME_NAME_BYTES = 255;
const MAX_SECTOR_BYTES = 65_536;

const describedWrongly = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_INGEST_DESCRIPTION', message);

function checkDescriptions(server: ServerState, volumes: readonly VolumeDescription[]): void {
  const names = new Set(volumes.map(({ volume }) => volume));
  if (names.size !== volumes.length) throw describedWrongly('a volume is named twice');
  for (const { volume, sizeBytes, sectorBytes, generation } of volumes) {
    const nameBytes = Buffer.byteLength(volume, 'utf8');
    const isNamed = nameBytes > 0 && nameBytes <= MAX_VOLUME_NAME_BYTES && volume.isWellFormed();
    const isSized = Number.isSafeInteger(sizeBytes) && sizeBytes > 0;
    if (
      !isNamed ||
      !isSized ||
      sizeBytes > MAX_VOLUME_BYTES ||
      !/^[0-9a-f]{32}$/.test(generation)
    ) {
      throw describedWrongly(`volume ${volume}: name, size or generation is impossible`);
    }
    if (!Number.isInteger(sectorBytes) || sectorBytes < 1 || sectorBytes > MAX_SECTOR_BYTES) {
      throw describedWrongly(`volume ${volume}: sectors of ${sectorBytes} bytes`);
    }
    const head = server.volumes.get(volume)?.head;
    if (head?.generation === generation && head.sizeBytes !== sizeBytes) {
      throw describedWrongly(`volume ${volume}: another size, yet the same generation`);
    }
  }
}

/** Begins a session. What was open of another generation or size is dropped, durably. */
export async function beginSession(
  core: Core,
  server: ServerState,
  descriptions: readonly VolumeDescription[],
): Promise<IngestSession> {
  checkDescriptions(server, descriptions);
  if (server.hasIngest) {
    throw new UnderstudyError('ERR_INGEST_BUSY', `${server.server} has a session already`);
  }
  server.hasIngest = true;
  try {
    return await server.mutex.run(async () => {
      const over = new Set<VolumeDescription>();
      for (const description of descriptions) {
        if (await isOver(core, server, description)) over.add(description);
        else await dropOther(core, server, description);
      }
      return new IngestSession(core, server, descriptions, over);
    });
  } catch (error) {
    server.hasIngest = false;
    throw error;
  }
}

/**
 * A generation that was left for another one is over: its epochs have been counted already. An agent that has
 * committed in it sees by the position what is held, and begins a new one; any other is refused.
 */
async function isOver(
  core: Core,
  server: ServerState,
  { volume, generation, committedEpoch = 0 }: VolumeDescription,
): Promise<boolean> {
  const state = server.volumes.get(volume);
  if (state?.head == null || state.head.generation === generation) return false;
  const { bases, deltas } = await listMaps(core, { server: server.server, volume, generation });
  const isStaged = state.staged.some(({ info }) => info.generation === generation);
  if (!isStaged && bases.length + deltas.length === 0) return false;
  if (committedEpoch === 0) throw leftGeneration(volume, generation);
  return true;
}

const leftGeneration = (volume: string, generation: string): UnderstudyError =>
  describedWrongly(`volume ${volume}: generation ${generation} was left for another one`);

/**
 * The journal says that another epoch is open before memory does, or the former one, which a replay would
 * still have, could come back under what is sent later; and before the runs of the former one go.
 */
async function dropOther(
  core: Core,
  server: ServerState,
  description: VolumeDescription,
): Promise<void> {
  const state = volumeState(server, description.volume);
  const former = state.open;
  const open = new OpenEpoch(openName(server.server, description, state.head));
  if (former === null || isSameEpoch(former.name, open.name)) return;
  const { sequence } = await core.journal.append({
    ...emptyBatch,
    records: (handleOf) => [encodeCursorRecord(handleOf(open.name), 0)],
  });
  open.moveCursor(0, sequence);
  state.open = open;
  await core.journal.durable();
  for (const run of former.runFiles) await discard(core.disk, run.path);
}

class IngestSession implements Ingest {
  readonly positions: readonly VolumePosition[];
  private readonly core: Core;
  private readonly server: ServerState;
  private readonly volumes: readonly SessionVolume[];
  private readonly arrivals: Arrivals;
  private failure: UnderstudyError | null = null;

  constructor(
    core: Core,
    server: ServerState,
    descriptions: readonly VolumeDescription[],
    over: ReadonlySet<VolumeDescription>,
  ) {
    this.core = core;
    this.server = server;
    this.volumes = descriptions.map((description) => {
      const state = server.volumes.get(description.volume)!;
      const view = new VolumeView(core, state);
      return { description, state, view, isOver: over.has(description) };
    });
    this.arrivals = new Arrivals(descriptions.length);
    this.positions = this.volumes.map((volume) => positionOf(core, server.server, volume));
  }

  offer(
    volume: number,
    entries: readonly IndexedEntry[],
    synced: number,
  ): Promise<{ need: Uint8Array; changed: number }> {
    return this.step(async () => {
      const target = this.target(volume);
      if (entries.some(({ entry }) => entry.whole === null || entry.mask !== 0)) {
        throw new UnderstudyError('ERR_ENTRIES_INVALID', 'an offer has wholes and zeros only');
      }
      const { encoded, own } = this.ownEntries(target, entries);
      const epoch = openEpoch(this.server.server, target.state, target.description);
      const changed = await target.view.countChanged(own, target.description.sizeBytes);
      const need = await this.needs(volume, own, synced);
      await this.record(target, epoch, encoded, own, []);
      await this.moveCursors();
      return { need, changed };
    });
  }

  patch(
    volume: number,
    entries: readonly IndexedEntry[],
    pieces: readonly VerifiedPiece[],
  ): Promise<void> {
    return this.step(async () => {
      const target = this.target(volume);
      const { encoded, own } = this.ownEntries(target, entries);
      const epoch = openEpoch(this.server.server, target.state, target.description);
      await this.record(target, epoch, encoded, own, this.ownPieces(pieces));
      await this.moveCursors();
    });
  }

  pieces(pieces: readonly VerifiedPiece[]): Promise<void> {
    return this.step(async () => {
      const own = this.ownPieces(pieces);
      await this.append(own, null);
      for (const { digest } of own) this.arrivals.arrived(digest);
      await this.moveCursors();
    });
  }

  async durable(): Promise<void> {
    await this.step(async () => undefined);
    await this.core.journal.durable();
  }

  commit(request: CommitRequest): Promise<CommitOutcome> {
    return this.step(() => {
      for (const { volume } of request.volumes)
        if (this.volumes[volume]?.isOver) this.target(volume);
      return commitEpochs(this.core, this.server, this.volumes, request);
    });
  }

  async close(): Promise<void> {
    await this.server.mutex.run(async () => {
      if (this.failure?.code === 'ERR_INGEST_CLOSED') return;
      this.failure = new UnderstudyError('ERR_INGEST_CLOSED', 'the session has ended');
      this.server.hasIngest = false;
    });
  }

  /** Runs a call in its turn; one that throws ends the session. */
  private step<T>(run: () => Promise<T>): Promise<T> {
    return this.server.mutex.run(async () => {
      if (this.failure !== null) throw this.failure;
      try {
        return await run();
      } catch (error) {
        if (error instanceof UnderstudyError) this.failure = error;
        else this.failure = new UnderstudyError('ERR_BUG', String(error), {}, error);
        throw this.failure;
      }
    });
  }

  private target(volume: number): SessionVolume {
    const target = this.volumes[volume];
    if (target === undefined) {
      throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', `no volume ${volume} in this session`);
    }
    const { description, isOver } = target;
    if (isOver) throw leftGeneration(description.volume, description.generation);
    return target;
  }

  /**
   * Entries checked, under the repository's names, and copied: the caller's bytes may belong to a large
   * frame.
   */
  private ownEntries(
    { description }: SessionVolume,
    entries: readonly IndexedEntry[],
  ): { encoded: Uint8Array; own: IndexedEntry[] } {
    const { names } = this.core;
    const encoded = encodeEntries(names === plainNames ? entries : named(entries, names));
    if (encoded.length > MAX_BODY_BYTES - HANDLE_BYTES) {
      throw new UnderstudyError('ERR_ENTRIES_INVALID', 'more entries than a record holds');
    }
    const own = decodeEntries(encoded);
    checkEntriesWithin(own, description.sizeBytes);
    return { encoded, own };
  }

  /** Pieces under the repository's names. */
  private ownPieces(pieces: readonly VerifiedPiece[]): readonly VerifiedPiece[] {
    const { names } = this.core;
    for (const piece of pieces) checkPiece(piece);
    if (names === plainNames) return pieces;
    return pieces.map((piece) => ({ ...piece, digest: names.ofDigest(piece.digest) }));
  }

  private async needs(
    volume: number,
    entries: readonly IndexedEntry[],
    synced: number,
  ): Promise<Uint8Array> {
    const offer = this.arrivals.begin(volume, synced);
    const need: number[] = [];
    for (const { entry } of entries) {
      if (entry.whole === null || entry.whole === 'zero') continue;
      const isHeld =
        !this.arrivals.isAsked(entry.whole) &&
        (await this.core.index.owns(this.server.domain, entry.whole)) > 0;
      need.push(!isHeld && this.arrivals.expect(entry.whole, offer) ? 1 : 0);
    }
    return Uint8Array.from(need);
  }

  private async record(
    { state }: SessionVolume,
    epoch: OpenEpoch,
    encoded: Uint8Array,
    own: readonly IndexedEntry[],
    pieces: readonly VerifiedPiece[],
  ): Promise<void> {
    if (own.length + pieces.length === 0) return;
    const segment = await this.append(pieces, (handleOf) => [
      encodeEntriesRecord(handleOf(epoch.name), encoded),
    ]);
    epoch.apply(own, segment!);
    for (const { digest } of pieces) this.arrivals.arrived(digest);
    await spillWhereLarge(this.core, state);
  }

  /**
   * Writes pieces that are not held, grants for those that are, and records after them. Returns the
   * segment; null where there was nothing to write.
   */
  private async append(
    pieces: readonly VerifiedPiece[],
    records: Batch['records'] | null,
  ): Promise<number | null> {
    const { reservations, index, journal } = this.core;
    for (;;) {
      const batch = await this.pieceBatch(pieces);
      const count = batch.pieces.length + batch.grants.length;
      if (count === 0 && records === null) return null;
      const names = batch.pieces.map(({ digest }) => toHex(digest));
      const waiting = reservations.waiting(names);
      if (waiting.length > 0) {
        await Promise.all(waiting);
        continue;
      }
      const isStale = batch.pieces.some(({ digest }) => index.findInMemory(digest) !== null);
      if (isStale) continue;
      const release = reservations.reserve(names);
      try {
        return (await journal.append({ ...batch, records: records ?? (() => []) })).sequence;
      } finally {
        release();
      }
    }
  }

  /** What of `pieces` must be written: contents that are not held, and grants of those that are. */
  private async pieceBatch(pieces: readonly VerifiedPiece[]): Promise<Omit<Batch, 'records'>> {
    const { owner } = this.server;
    const { index, names } = this.core;
    const seen = new Set<string>();
    const fresh: VerifiedPiece[] = [];
    const grants: { key: Uint8Array; digest: Uint8Array }[] = [];
    for (const piece of pieces) {
      const name = toHex(piece.digest);
      if (seen.has(name)) continue;
      seen.add(name);
      if ((await index.claim(piece.digest)) === null) {
        fresh.push(piece);
        continue;
      }
      this.core.dedupeHits += 1;
      if ((await index.owns([owner], piece.digest)) === 0) {
        grants.push({ key: names.grant(owner, piece.digest), digest: piece.digest });
      }
    }
    return { ...emptyBatch, owner, pieces: fresh, grants };
  }

  /** Makes cursors that may move on part of the journal. */
  private async moveCursors(): Promise<void> {
    for (const [i, { state }] of this.volumes.entries()) {
      const synced = this.arrivals.takeCursor(i);
      const { open } = state;
      if (open === null || synced <= open.syncedChunks) continue;
      const segment = await this.core.journal.append({
        ...emptyBatch,
        records: (handleOf) => [encodeCursorRecord(handleOf(open.name), synced)],
      });
      open.moveCursor(synced, segment.sequence);
    }
  }
}

/** Entries whose contents have the repository's names in the place of the agent's digests. */
function named(entries: readonly IndexedEntry[], names: Names): IndexedEntry[] {
  const nameOf = (piece: Piece): Piece => (piece === 'zero' ? piece : names.ofDigest(piece));
  return entries.map(({ index, count, entry }) => {
    const whole = entry.whole === null ? null : nameOf(entry.whole);
    return { index, count, entry: { ...entry, whole, blocks: entry.blocks.map(nameOf) } };
  });
}

/** Nothing is said to be held of a history that is damaged: the agent begins another one, by a rescan. */
function positionOf(core: Core, server: string, volume: SessionVolume): VolumePosition {
  const { head } = volume.state;
  const isLeft =
    head !== null && head.generation === volume.description.generation && core.damage.demands(head);
  const committed =
    head === null || isLeft
      ? null
      : { generation: head.generation, epoch: head.epoch, contentDigest: head.contentDigest };
  if (volume.isOver) return { committed, syncedChunks: 0 };
  return {
    committed,
    syncedChunks: openEpoch(server, volume.state, volume.description).syncedChunks,
  };
}

function checkPiece({ digest, rawLength, stored, codec }: VerifiedPiece): void {
  const isRight =
    digest.length === DIGEST_BYTES &&
    rawLength > 0 &&
    rawLength <= MAX_PIECE_BYTES &&
    stored.length > 0 &&
    (codec === 0 ? stored.length === rawLength : codec === 1 && stored.length < rawLength);
  if (!isRight) throw new UnderstudyError('ERR_ENTRIES_INVALID', 'a piece of impossible length');
}
