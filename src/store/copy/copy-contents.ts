/**
 * The contents of a copy: what the maps of a point name and the destination does not find is read at the
 * source, checked against its name, and written into packs of the destination's own. So a pack that the
 * source has rewritten since costs nothing again. In windows: memory does not grow with the maps.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Core } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { PackWriter } from '../repository/pack-writer.ts';

/** So many contents are looked for, and read, together: 16 MiB at most. */
const WINDOW_PIECES = 256;

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
  private readonly source: Pick<Core, 'reader'>;
  private readonly target: Core;
  private readonly spend: Spend;
  private writer: PackWriter;
  private counted = 0;
  private readonly wanted = new Map<string, { digest: Uint8Array; owner: Uint8Array }>();

  constructor(source: Pick<Core, 'reader'>, target: Core, spend: Spend) {
    this.source = source;
    this.target = target;
    this.spend = spend;
    this.writer = new PackWriter(target);
  }

  /** Has the destination hold the content, at the latest after `settle`. HurtSource. */
  async want(digest: Uint8Array, owner: Uint8Array): Promise<void> {
    const name = toHex(digest);
    if (this.wanted.has(name) || (await this.isHeld(digest))) return;
    this.wanted.set(name, { digest: digest.slice(), owner });
    if (this.wanted.size >= WINDOW_PIECES) await this.settle();
  }

  /** What was wanted is in a pack, which may not have its name yet. HurtSource. */
  async settle(): Promise<void> {
    const wanted = [...this.wanted.values()];
    this.wanted.clear();
    if (wanted.length === 0) return;
    const contents = await this.read(wanted.map(({ digest }) => digest));
    for (const [i, { owner }] of wanted.entries()) await this.put(contents[i]!, owner);
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
  forget(): void {
    this.wanted.clear();
  }

  /** All that was put lies in packs that have their names. */
  async publish(): Promise<void> {
    await this.writer.finish();
  }

  async abandon(): Promise<void> {
    await this.writer.abandon();
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
