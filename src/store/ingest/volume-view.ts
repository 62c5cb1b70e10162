/**
 * What the store holds of a volume right now, leaf by leaf: the open epoch over the newest committed map,
 * of whatever generation. Answers how many of the offered chunks differ from it, which is what a rescan
 * reports and what the `scan` tracker decides by. A chunk of which patches are held counts as different.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ChunkEntry, IndexedEntry } from '../../model/entry.ts';
import { endOfEntries } from '../../model/entry-codec.ts';
import type { VolumeHead } from '../catalog/catalog.ts';
import type { Core, VolumeState } from '../core.ts';
import { equalBytes } from '../format/checksum.ts';
import { isDamage } from '../format/object-header.ts';
import {
  chunksInLeaf,
  composeAll,
  isZeroLeaf,
  type Leaf,
  openLeaf,
  splitByLeaf,
} from '../leaves/leaf.ts';
import { readComposed } from '../leaves/leaf-source.ts';
import { type Chain, openChain } from '../maps/chain.ts';

const CACHED_LEAVES = 64;

const isSame = (held: ChunkEntry | undefined, offered: ChunkEntry): boolean => {
  if (held === undefined || held.mask !== 0) return false;
  if (held.whole === 'zero' || offered.whole === 'zero') return held.whole === offered.whole;
  return held.whole !== null && equalBytes(held.whole, offered.whole!);
};

export class VolumeView {
  private readonly core: Core;
  private readonly state: VolumeState;
  private chain: Chain | null = null;
  /** The committed position that `chain` and `cached` are of. */
  private chainRoot = '';
  private readonly cached = new Map<number, Leaf | undefined>();

  constructor(core: Core, state: VolumeState) {
    this.core = core;
    this.state = state;
  }

  /** How many chunks of `entries` (wholes and zeros) differ from what is held. */
  async countChanged(entries: readonly IndexedEntry[], sizeBytes: number): Promise<number> {
    let changed = 0;
    for (const { leaf, entries: part } of splitByLeaf(entries)) {
      const held = await this.leaf(leaf);
      const count = part.reduce((sum, item) => sum + item.count, 0);
      if (held === undefined || endOfEntries(held).end <= part[0]!.index) {
        changed += count;
        continue;
      }
      const isZero = part.length === 1 && part[0]!.entry.whole === 'zero';
      if (isZero && isZeroLeaf(held, chunksInLeaf(leaf, sizeBytes))) continue;
      const open = openLeaf(held);
      for (const { index, count: run, entry } of part) {
        for (let i = index; i < index + run; i += 1) if (!isSame(open[i], entry)) changed += 1;
      }
    }
    return changed;
  }

  private async leaf(leaf: number): Promise<Leaf | undefined> {
    const open = this.state.open?.sources() ?? [];
    const committed = await this.committedLeaf(leaf);
    return composeAll([committed, await readComposed(open, leaf)]);
  }

  private async committedLeaf(leaf: number): Promise<Leaf | undefined> {
    const { head } = this.state;
    if (head === null) return undefined;
    if (head.chainRoot === this.chainRoot && this.cached.has(leaf)) return this.cached.get(leaf);
    const bytes = await this.readSound(head, leaf);
    if (this.cached.size >= CACHED_LEAVES) this.cached.delete(this.cached.keys().next().value!);
    this.cached.set(leaf, bytes);
    return bytes;
  }

  /** Undefined where the maps are damaged: all that is offered then differs, and a rescan is the cure. */
  private async readSound(head: VolumeHead, leaf: number): Promise<Leaf | undefined> {
    try {
      if (head.chainRoot !== this.chainRoot) await this.openMaps(head);
      return await this.readCommitted(head, leaf);
    } catch (error) {
      if (!isDamage(error)) throw error;
      const { server, volume } = head;
      this.core.log.error('maps are damaged', { server, volume, error: error.message });
      return undefined;
    }
  }

  private async openMaps(head: VolumeHead): Promise<void> {
    this.chain = await openChain(this.core, head, head.epoch, this.state.staged);
    this.chainRoot = head.chainRoot;
    this.cached.clear();
  }

  private async readCommitted(head: VolumeHead, leaf: number): Promise<Leaf | undefined> {
    try {
      return await this.chain!.read(leaf);
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DISK_NOT_FOUND') throw error;
      await this.openMaps(head); // a fold has replaced the maps
      return this.chain!.read(leaf);
    }
  }
}
