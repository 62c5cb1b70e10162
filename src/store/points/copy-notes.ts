/**
 * Where else points are held: after a copy the source has an object a destination that says which points
 * are there. It is an object of the repository, so that a rebuilt catalog and an offline reader know it.
 * A new one gets the next number; then the one before goes. What cannot be read says nothing: a point is
 * then shown as held here alone, until the next copy.
 *
 *   copies/REPOSITORY-NUMBER.copy     header {body length u32, XXH64 of the body}, then the body, JSON
 */
import type { Disk } from '../../base/disk.ts';
import type { Log } from '../../base/log.ts';
import { decodeJsonObject, encodeJsonObject } from '../format/json-object.ts';
import type { Paths } from '../format/layout.ts';
import { discard, writeObject } from '../format/object-file.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import type { HeldCopy, KnownCopy } from '../types.ts';

const MAGIC = 'US-COPY ';

export interface CopyNote {
  /** Where the copy is, as the operator named it. */
  readonly place: string;
  /** Id of the repository there. */
  readonly repository: string;
  /** When the copy began, ms since 1970. */
  readonly timeMs: number;
  /** When all that lies there was read back; null: parts of it never were. */
  readonly verifiedMs: number | null;
  /** By id: when the bytes that the point needs had all been read back at the destination, or null. */
  readonly points: ReadonlyMap<string, number | null>;
}

interface Readable {
  readonly disk: Disk;
  readonly paths: Paths;
}

function encodeNote({ points, ...rest }: CopyNote): Uint8Array {
  const listed = [...points].map(([id, verifiedMs]) => ({ id, verifiedMs }));
  return encodeJsonObject(MAGIC, { ...rest, points: listed });
}

function decodeNote(bytes: Uint8Array, path: string): CopyNote {
  const value = decodeJsonObject(bytes, MAGIC, path);
  try {
    return noteOf(value);
  } catch (cause) {
    throw damaged(path, 'the body is not a note of a copy', cause);
  }
}

const isTime = (value: unknown): value is number => Number.isSafeInteger(value);
const isTimeOrNull = (value: unknown): value is number | null => value === null || isTime(value);

/** Throws for anything else. */
function noteOf(value: Record<string, unknown>): CopyNote {
  const { place, repository, timeMs, verifiedMs, points } = value;
  const isRight = typeof place === 'string' && typeof repository === 'string' && isTime(timeMs);
  if (!isRight || !isTimeOrNull(verifiedMs) || !Array.isArray(points)) {
    throw new TypeError('fields of other types');
  }
  const held = new Map<string, number | null>();
  for (const { id, verifiedMs: at } of points) {
    if (typeof id !== 'string' || !isTimeOrNull(at)) throw new TypeError('a point of other types');
    held.set(id, at);
  }
  return { place, repository, timeMs, verifiedMs, points: held };
}

/** The notes that there are, by the id of the destination's repository; of each the newest. */
export class CopyNotes {
  private readonly notes = new Map<string, { note: CopyNote; number: number }>();

  /** Reads what the repository has. */
  async load(core: Readable & { readonly log: Log }): Promise<void> {
    this.notes.clear();
    for (const { repository, number } of await listNotes(core)) {
      try {
        this.notes.set(repository, { note: await readNote(core, repository, number), number });
      } catch (error) {
        if (isNotFound(error)) continue; // replaced beside an offline reader
        if (!isDamage(error)) throw error;
        core.log.warn('a note of a copy is damaged and says nothing', { error: error.message });
      }
    }
  }

  of(repository: string): CopyNote | null {
    return this.notes.get(repository)?.note ?? null;
  }

  /** The newest note of a place. */
  at(place: string): CopyNote | null {
    const found = [...this.notes.values()].map(({ note }) => note);
    const here = found.filter((note) => note.place === place);
    return here.sort((a, b) => b.timeMs - a.timeMs)[0] ?? null;
  }

  /** Newest first. */
  all(): KnownCopy[] {
    const notes = [...this.notes.values()].map(({ note }) => note);
    const known = notes.map((note) => ({ ...note, points: note.points.size }));
    return known.sort((a, b) => b.timeMs - a.timeMs);
  }

  /** Where a point is held besides. */
  holding(point: string): HeldCopy[] {
    const copies: HeldCopy[] = [];
    for (const { note } of this.notes.values()) {
      const verifiedMs = note.points.get(point);
      if (verifiedMs !== undefined) copies.push({ place: note.place, verifiedMs });
    }
    return copies.sort((a, b) => (a.place < b.place ? -1 : 1));
  }

  /** Durable once it resolves. The new one is there before the old one goes. `temporary`: a path that is free. */
  async write(core: Readable, temporary: string, note: CopyNote): Promise<void> {
    const { repository } = note;
    const numbers = (await listNotes(core))
      .filter((other) => other.repository === repository)
      .map(({ number }) => number);
    const number = Math.max(0, ...numbers) + 1;
    const path = core.paths.copyNote(repository, number);
    await writeObject(core.disk, temporary, path, [encodeNote(note)]);
    this.notes.set(repository, { note, number });
    for (const old of numbers) await discard(core.disk, core.paths.copyNote(repository, old));
  }
}

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function readNote(
  { disk, paths }: Readable,
  repository: string,
  number: number,
): Promise<CopyNote> {
  const path = paths.copyNote(repository, number);
  const note = decodeNote(await disk.readFile(path), path);
  if (note.repository === repository) return note;
  throw damaged(path, 'the note of another repository');
}

/** Ascending by number. */
export async function listNotes({
  disk,
  paths,
}: Readable): Promise<{ repository: string; number: number }[]> {
  const names = (await disk.list(paths.copies)).map(({ name }) => name);
  const notes = names.flatMap((name) => {
    const match = /^([0-9a-f]{32})-(\d{10})\.copy$/.exec(name);
    return match === null ? [] : [{ repository: match[1]!, number: Number(match[2]) }];
  });
  return notes.sort((a, b) => a.number - b.number);
}
