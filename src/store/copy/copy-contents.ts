/**
 * The contents of a copy: what the maps of a point name and the destination does not find is read at the
 * source, checked against its name, and written into packs of the destination's own. So a pack that the
 * source has rewritten since costs nothing again. In windows: memory does not grow with the maps. Of a
 * source that is far away the next windows are read while one is written.
 */
import type { FarReads } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import type { Core } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { PackWriter } from '../repository/pack-writer.ts';

/** So many contents are looked for, and read, together, 16 MiB at most; of a source that is far away 4 MiB. */
const NEAR_PIECES = 256;
const FAR_PIECES = 64;

interface Wanted {
  readonly digest: Uint8Array;
  readonly owner: Uint8Array;
}

/** What is read together. */
interface Window {
  readonly names: readonly string[];
  readonly wanted: readonly Wanted[];
  readonly contents: Promise<Uint8Array[]>;
}

/** Windows that are read besides the one that is written: all together hold what the requests may. */
const windowsAhead = (far: FarReads | undefined): number =>
  far === undefined ? 0 : Math.max(1, Math.floor(far.bytes / (FAR_PIECES * CHUNK_BYTES)) - 1);

/** What the source cannot give, though a point needs it: the point is left out, the copy goes on. */
export class HurtSource extends Error {
  /** Path of the map that cannot be read; empty where it is a content that cannot. */
  readonly map: string;

  constructor(cause: Error, map = '') {
    super(cause.message, { cause });
    this.name = 'HurtSource';
    this.map = map;
  }
}

/** Damage of the source becomes HurtSource: the same errors at the destination must end the copy. */
export async function fromSource<T>(read: () => Promise<T>, map = ''): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (isDamage(error) && !isNotFound(error)) throw new HurtSource(error, map);
    throw error;
  }
}

/** Called with the bytes that were read or written; may wait, and may throw to end the copy. */
export type Spend = (bytes: { read: number; written: number }) => Promise<void>;

export class ContentCopier {
  pieces = 0;
  private readonly source: Pick<Core, 'reader' | 'disk'>;
  private readonly target: Core;
  private readonly spend: Spend;
  private writer: PackWriter;
  private counted = 0;
  private readonly windowPieces: number;
  private readonly ahead: number;
  private wanted = new Map<string, Wanted>();
  /** Windows that are read, in their order, and the names in them. */
  private windows: Window[] = [];
  private readonly coming = new Set<string>();

  constructor(source: Pick<Core, 'reader' | 'disk'>, target: Core, spend: Spend) {
    const { far } = source.disk;
    this.windowPieces = far === undefined ? NEAR_PIECES : FAR_PIECES;
    this.ahead = windowsAhead(far);
    this.source = source;
    this.target = target;
    this.spend = spend;
    this.writer = new PackWriter(target);
  }

  /** Has the destination hold the content, at the latest after `settle`. HurtSource. */
  async want(digest: Uint8Array, owner: Uint8Array): Promise<void> {
    const name = toHex(digest);
    if (this.wanted.has(name) || this.coming.has(name) || (await this.isHeld(digest))) return;
    this.wanted.set(name, { digest: digest.slice(), owner });
    if (this.wanted.size < this.windowPieces) return;
    this.beginWindow();
    await this.writeWindows(this.ahead);
  }

  /** What was wanted is in a pack, which may not have its name yet. HurtSource. */
  async settle(): Promise<void> {
    if (this.wanted.size > 0) this.beginWindow();
    await this.writeWindows(0);
  }

  /** One content of the source, for the caller to look at; `put` copies it. HurtSource. */
  async look(digest: Uint8Array): Promise<Uint8Array> {
    return (await this.read([digest]))[0]!;
  }

  async put(content: Uint8Array, owner: Uint8Array): Promise<Uint8Array> {
    const digest = await this.writer.put(content, owner);
    const written = this.writer.bytes - this.counted;
    this.counted += written;
    if (written > 0) {
      this.pieces += 1;
      await this.spend({ read: 0, written });
    }
    return digest;
  }

  /** Gives up what is wanted and not there yet: its point is left out. */
  async forget(): Promise<void> {
    const { windows } = this;
    this.wanted.clear();
    this.coming.clear();
    this.windows = [];
    // Nothing is read of the source any more once this resolves.
    await Promise.allSettled(windows.map(({ contents }) => contents));
  }

  /** All that was put lies in packs that have their names. */
  async publish(): Promise<void> {
    await this.writer.finish();
  }

  async abandon(): Promise<void> {
    await this.forget();
    await this.writer.abandon();
  }

  private beginWindow(): void {
    const wanted = [...this.wanted.values()];
    const names = [...this.wanted.keys()];
    this.wanted = new Map();
    const contents = this.read(wanted.map(({ digest }) => digest));
    contents.catch(() => undefined); // it is thrown when its turn comes, or nobody wants it any more
    this.windows.push({ names, wanted, contents });
    for (const name of names) this.coming.add(name);
  }

  /** Writes what was read, the oldest first, until only `left` windows are under way. HurtSource. */
  private async writeWindows(left: number): Promise<void> {
    try {
      while (this.windows.length > left) {
        const { names, wanted, contents } = this.windows[0]!;
        const read = await contents;
        for (const [i, { owner }] of wanted.entries()) await this.put(read[i]!, owner);
        for (const name of names) this.coming.delete(name);
        this.windows.shift();
      }
    } catch (error) {
      await this.forget();
      throw error;
    }
  }

  private async isHeld(digest: Uint8Array): Promise<boolean> {
    if (this.writer.holds(digest)) return true;
    const place = await this.target.index.find(digest);
    return place !== null && this.target.packs.byNumber(place.pack)?.isPublished === true;
  }

  private async read(digests: readonly Uint8Array[]): Promise<Uint8Array[]> {
    const { reader } = this.source;
    const contents: Uint8Array[] = [];
    let read = 0;
    await fromSource(async () => {
      const places = await reader.locate(digests);
      const found = places.map((place, i) => {
        if (place !== null) return place;
        const digest = toHex(digests[i]!);
        throw new UnderstudyError('ERR_PIECE_MISSING', `no pack has ${digest}`, { digest });
      });
      await reader.read(found, (i, content) => {
        contents[i] = content.slice();
        read += found[i]!.storedLength;
      });
    });
    await this.spend({ read, written: 0 });
    return contents;
  }
}
