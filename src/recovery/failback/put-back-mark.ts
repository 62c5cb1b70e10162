/**
 * Whether a disk was put back from an undo file (undo-file.ts): two places of 512 bytes, written in turns, so
 * that a mark that is torn leaves the one before. They lie in front of the records and have their room from
 * the start: a disk can be put back where there is no room left. "begun" is durable before anything of the
 * disk is written, "done" is written after all was read back. Pure.
 *
 *   a place   zeros, or "<SHA-256 of the salt and the JSON, hex> <JSON>\n" and zeros
 *   JSON      {number (from 1), event, target (shortened), isElsewhere, time}
 */
import { hash } from 'node:crypto';

export type PutBackEvent = 'begun' | 'done';

export interface PutBack {
  readonly event: PutBackEvent;
  /** Where to, for people; '' where it cannot be read. */
  readonly target: string;
  /** Another path than that of which it was kept. */
  readonly isElsewhere: boolean;
  readonly time: string;
}

interface Mark extends PutBack {
  readonly number: number;
}

const PLACE_BYTES = 512;
export const MARKS_BYTES = 2 * PLACE_BYTES;
/** With its escapes it fits. */
const MAX_TARGET = 40;

/** Null: nothing was ever written there. 'torn': something, and no whole mark. */
function decode(place: Buffer, salt: Uint8Array): Mark | 'torn' | null {
  if (place.every((byte) => byte === 0)) return place.length === PLACE_BYTES ? null : 'torn';
  const [, digest, json] = /^([0-9a-f]{64}) (.*)\n\0*$/s.exec(place.toString('utf8')) ?? [];
  if (json === undefined || digestOf(salt, json) !== digest) return 'torn';
  return JSON.parse(json) as Mark;
}

const digestOf = (salt: Uint8Array, json: string): string =>
  hash('sha256', Buffer.concat([salt, Buffer.from(json)]));

export class PutBackMarks {
  /** The newest; null: none. */
  last: PutBack | null;
  private readonly salt: Uint8Array;
  private readonly at: number;
  private number: number;

  /** `bytes` lie at `at` of the file. */
  constructor(salt: Uint8Array, at: number, bytes: Buffer) {
    this.salt = salt;
    this.at = at;
    const places = [0, 1].map((place) =>
      decode(bytes.subarray(place * PLACE_BYTES, (place + 1) * PLACE_BYTES), salt),
    );
    const marks = places.filter((each) => each !== null && each !== 'torn');
    const newest = marks.reduce<Mark | null>(
      (best, mark) => (best === null || mark.number > best.number ? mark : best),
      null,
    );
    this.number = newest?.number ?? 0;
    // A first mark that is torn: as if it were there, which refuses more.
    const torn: PutBack = { event: 'begun', target: '', isElsewhere: false, time: '' };
    this.last = newest ?? (places.includes('torn') ? torn : null);
  }

  /** The next mark, and where in the file it is to be written. `of`: the path that was kept. */
  next(told: { event: PutBackEvent; target: string; time: string; of: string }): {
    bytes: Buffer;
    at: number;
  } {
    const { event, target, time, of } = told;
    this.number += 1;
    const isElsewhere = target !== of;
    const last: PutBack = { event, target: target.slice(0, MAX_TARGET), isElsewhere, time };
    this.last = last;
    const json = JSON.stringify({ number: this.number, ...last });
    const bytes = Buffer.alloc(PLACE_BYTES);
    bytes.write(`${digestOf(this.salt, json)} ${json}\n`);
    return { bytes, at: this.at + (this.number % 2) * PLACE_BYTES };
  }
}
