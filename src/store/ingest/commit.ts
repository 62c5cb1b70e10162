/**
 * Makes open epochs visible as one recovery point (P2: all its volumes at one instant; P4: durable before
 * it is acknowledged). What it costs depends on what changed, never on the volume or the history; only a
 * generation's first commit walks the whole map, leaf by leaf.
 *
 * Checked first: every chunk of a first epoch is known in every byte, and every content that the epoch
 * names is held and was sent by this server. What fails is listed as missing, and nothing changes.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { decodeEntries } from '../../model/entry-codec.ts';
import { CHUNKS_PER_LEAF, leafCount } from '../../model/geometry.ts';
import type { RecoveryPoint } from '../../model/replication.ts';
import { headsOf } from '../catalog/catalog.ts';
import type { Core, ServerState, StagedMap } from '../core.ts';
import { discard } from '../format/object-file.ts';
import type { OpenEpoch } from '../journal/open-epoch.ts';
import { type Leaf, missingChunks, piecesOf } from '../leaves/leaf.ts';
import { composedLeaves, type LeafSource, readComposed } from '../leaves/leaf-source.ts';
import { firstRoot } from '../maps/chain-root.ts';
import { MapBuilder } from '../maps/map-builder.ts';
import { encodeRecord, RECORD_COMMIT } from '../packs/record.ts';
import { emptyBatch } from '../packs/segment.ts';
import {
  decodePointBody,
  encodePointBody,
  type PointRecord,
  shownPoint,
} from '../points/point-format.ts';
import type { CommitOutcome, CommitRequest } from '../types.ts';
import { withPointId } from './point-id.ts';
import { openEpoch, type SessionVolume } from './session-volume.ts';

/** Most missing chunks that one answer lists for a volume. */
const MAX_MISSING = 4096;

interface Part {
  readonly index: number;
  readonly target: SessionVolume;
  readonly open: OpenEpoch;
  readonly contentDigest: string;
}

/** It lies in headers of maps, whose length is bounded. */
const MAX_DIGEST_DIGITS = 64;
/** No Date is later. */
const MAX_TIME_MS = 8.64e15;

type Requested = CommitRequest['volumes'][number];

const refused = (message: string, volume: string, epoch: number): UnderstudyError =>
  new UnderstudyError('ERR_COMMIT_POSITION', message, { volume, epoch });

export async function commitEpochs(
  core: Core,
  server: ServerState,
  volumes: readonly SessionVolume[],
  request: CommitRequest,
): Promise<CommitOutcome> {
  checkRequest(volumes, request);
  const done = request.volumes.filter((wanted) => isCommitted(volumes[wanted.volume]!, wanted));
  if (done.length === request.volumes.length) return repeated(core, server, volumes, request);
  const parts = request.volumes.map((wanted) => partOf(server, volumes, wanted));
  const sequence = core.nextSequence;
  core.nextSequence += 1;
  const maps: StagedMap[] = [];
  try {
    const missing = await buildMaps(
      core,
      server,
      parts,
      { sequence, timeMs: request.timeMs },
      maps,
    );
    if (missing.length > 0) {
      await forget(core, maps);
      return { kind: 'missing', volumes: missing };
    }
    return await withPointId(core, request.timeMs, async (id) => {
      const record = pointRecord(core, server, maps, request, { id, sequence });
      const segment = await appendCommit(core, record);
      return { kind: 'committed', point: await makeVisible(core, parts, maps, record, segment) };
    });
  } catch (error) {
    if (parts.every(({ open, target }) => target.state.open === open)) await forget(core, maps);
    throw error;
  }
}

type Missing = { volume: number; chunks: number[]; more: boolean };

/** Fills `maps`; returns what is missing instead, by volume. */
async function buildMaps(
  core: Core,
  server: ServerState,
  parts: readonly Part[],
  when: { sequence: number; timeMs: number },
  maps: StagedMap[],
): Promise<Missing[]> {
  const missing: Missing[] = [];
  for (const part of parts) {
    const result = await buildMap(core, server, part, when);
    if ('chunks' in result) missing.push({ volume: part.index, ...result });
    else maps.push(result);
  }
  return missing;
}

function checkRequest(volumes: readonly SessionVolume[], request: CommitRequest): void {
  const seen = new Set(request.volumes.map(({ volume }) => volume));
  const isKnown = request.volumes.every(({ volume }) => volumes[volume] !== undefined);
  const isRight = seen.size === request.volumes.length && seen.size > 0 && isKnown;
  if (!isRight) {
    const message = 'a commit names volumes of the session, once each';
    throw new UnderstudyError('ERR_COMMIT_POSITION', message);
  }
  const { timeMs } = request;
  const isTime = Number.isSafeInteger(timeMs) && timeMs >= 0 && timeMs <= MAX_TIME_MS;
  if (!isTime) throw new UnderstudyError('ERR_COMMIT_INVALID', `a cut at ${timeMs} ms is no time`);
  for (const { volume, contentDigest } of request.volumes) {
    if (contentDigest.length <= MAX_DIGEST_DIGITS) continue;
    throw new UnderstudyError('ERR_COMMIT_INVALID', `no content digest of volume ${volume}`);
  }
}

function isCommitted({ state: { head } }: SessionVolume, wanted: Requested): boolean {
  return (
    head !== null &&
    head.generation === wanted.generation &&
    head.epoch === wanted.epoch &&
    head.contentDigest === wanted.contentDigest
  );
}

/** The commit was done before and its answer was lost. */
async function repeated(
  core: Core,
  server: ServerState,
  volumes: readonly SessionVolume[],
  request: CommitRequest,
): Promise<CommitOutcome> {
  const heads = request.volumes.map(({ volume }) => volumes[volume]!.state.head!);
  const { pointId } = heads[0]!;
  const found = await core.catalog.point(pointId);
  if (found !== null) return { kind: 'committed', point: shownPoint(found.record) };
  // Retention has dropped the point since: what is known of it is enough for an answer.
  const point: RecoveryPoint = {
    id: pointId,
    server: server.server,
    time: new Date(request.timeMs).toISOString(),
    cut: request.cut,
    volumes: heads,
    missingVolumes: request.missingVolumes,
  };
  return { kind: 'committed', point };
}

function partOf(server: ServerState, volumes: readonly SessionVolume[], wanted: Requested): Part {
  const target = volumes[wanted.volume]!;
  const open = openEpoch(server.server, target.state, target.description);
  const { volume, generation, epoch } = open.name;
  if (wanted.generation !== generation) throw refused('another generation is open', volume, epoch);
  if (wanted.epoch !== epoch) throw refused(`epoch ${wanted.epoch} is not next`, volume, epoch);
  return { index: wanted.volume, target, open, contentDigest: wanted.contentDigest };
}

/** The epoch's map, or the chunks that keep it from being committed. */
async function buildMap(
  core: Core,
  server: ServerState,
  { target, open, contentDigest }: Part,
  when: { sequence: number; timeMs: number },
): Promise<StagedMap | { chunks: number[]; more: boolean }> {
  const { epoch, ...place } = open.name;
  const previousRoot =
    epoch === 1 ? firstRoot(place, place.sizeBytes) : target.state.head!.chainRoot;
  const builder = new MapBuilder(core, {
    ...place,
    from: epoch - 1,
    to: epoch,
    ...when,
    previousRoot,
    contentDigest,
  });
  const missing: number[] = [];
  try {
    for await (const { leaf, bytes } of leavesToCheck(open)) {
      missing.push(...(await missingOf(core, server, open, leaf, bytes)));
      if (missing.length > MAX_MISSING) break;
      if (missing.length === 0) await builder.add(leaf, bytes!);
    }
    if (missing.length === 0) return await builder.finish(open);
  } catch (error) {
    await builder.abandon();
    throw error;
  }
  await builder.abandon();
  return { chunks: missing.slice(0, MAX_MISSING), more: missing.length > MAX_MISSING };
}

/** Leaves of the epoch; of a first epoch all leaves of the volume, known or not. */
async function* leavesToCheck(
  open: OpenEpoch,
): AsyncGenerator<{ leaf: number; bytes: Leaf | undefined }> {
  const sources: LeafSource[] = open.sources();
  if (open.name.epoch > 1) {
    yield* composedLeaves(sources);
    return;
  }
  for (let leaf = 0; leaf < leafCount(open.name.sizeBytes); leaf += 1) {
    yield { leaf, bytes: await readComposed(sources, leaf) };
  }
}

async function missingOf(
  core: Core,
  server: ServerState,
  open: OpenEpoch,
  leaf: number,
  bytes: Leaf | undefined,
): Promise<number[]> {
  const { epoch, sizeBytes } = open.name;
  const missing = new Set(epoch === 1 ? missingChunks(leaf, bytes, sizeBytes) : []);
  if (bytes === undefined) return [...missing];
  for (const { index, entry } of decodeEntries(bytes)) {
    const chunk = leaf * CHUNKS_PER_LEAF + index;
    for (const { piece, length } of piecesOf(entry, chunk, sizeBytes)) {
      if (piece === 'zero') continue;
      if ((await core.index.owns(server.domain, piece)) !== length) missing.add(chunk);
    }
  }
  return [...missing].sort((a, b) => a - b);
}

/** A record that a restart could not read would be damage, for all servers: it is refused before. */
function readableBody(record: PointRecord): Uint8Array {
  const body = encodePointBody(record);
  try {
    decodePointBody(body, 'the commit');
    return body;
  } catch (cause) {
    throw new UnderstudyError('ERR_COMMIT_INVALID', String(cause), {}, cause);
  }
}

/** Durable once it resolves with the segment of the record. */
async function appendCommit(core: Core, record: PointRecord): Promise<number> {
  const body = readableBody(record);
  const { sequence } = await core.journal.append({
    ...emptyBatch,
    records: () => [encodeRecord(RECORD_COMMIT, body)],
  });
  await core.journal.durable();
  return sequence;
}

async function makeVisible(
  core: Core,
  parts: readonly Part[],
  maps: readonly StagedMap[],
  record: PointRecord,
  segment: number,
): Promise<RecoveryPoint> {
  for (const [i, head] of headsOf(record).entries()) {
    const { state } = parts[i]!.target;
    state.head = head;
    state.open = null;
    state.staged.push(maps[i]!);
  }
  core.staged.set(record.id, { record, segment });
  try {
    await core.catalog.putPoint(record, 'staged');
  } catch (error) {
    throw core.journal.fail(error); // the point is durable; a restart shows it
  }
  core.onStaged();
  return shownPoint(record);
}

function pointRecord(
  core: Core,
  server: ServerState,
  maps: readonly StagedMap[],
  request: CommitRequest,
  { id, sequence }: { readonly id: string; readonly sequence: number },
): PointRecord {
  return {
    id,
    server: server.server,
    time: new Date(request.timeMs).toISOString(),
    timeMs: request.timeMs,
    sequence,
    requestId: request.requestId,
    receivedMs: Math.max(0, Math.floor(core.clock.wallMs())),
    cut: request.cut,
    volumes: maps.map(({ info }) => ({
      volume: info.volume,
      sizeBytes: info.sizeBytes,
      sectorBytes: info.sectorBytes,
      generation: info.generation,
      epoch: info.to,
      chainRoot: info.root,
      previousRoot: info.previousRoot,
      contentDigest: info.contentDigest,
    })),
    missingVolumes: request.missingVolumes,
  };
}

/** Temporary files of maps that are not to be. */
async function forget(core: Core, maps: readonly StagedMap[]): Promise<void> {
  for (const { file } of maps) if (file !== null) await discard(core.disk, file.path);
}
