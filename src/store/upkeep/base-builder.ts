/**
 * Writes a base: the whole map of a volume at a sealed epoch, from the base before it and the deltas
 * since. Leaves that no delta touched keep their table. Chunks of which patches are held are put together
 * and stored whole, so that patches do not pile up. In the background, leaf by leaf, in bounded memory.
 *
 * The base is read back and compared with what it was made from before it is given its name.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ChunkEntry, IndexedEntry } from '../../model/entry.ts';
import { encodeEntries } from '../../model/entry-codec.ts';
import { CHUNK_BYTES, CHUNKS_PER_LEAF, chunkLength, leafCount } from '../../model/geometry.ts';
import type { VolumeHead } from '../catalog/catalog.ts';
import { type Core, temporaryPath } from '../core.ts';
import { equalBytes } from '../format/checksum.ts';
import { STORE_OWNER } from '../format/layout.ts';
import { writeObject } from '../format/object-file.ts';
import { chunksInLeaf, isZeroLeaf, type Leaf, openLeaf } from '../leaves/leaf.ts';
import { mergedLeafNumbers } from '../leaves/leaf-source.ts';
import { Base, type BaseInfo, decodeBase, encodeBase } from '../maps/base.ts';
import { type Chain, openChain } from '../maps/chain.ts';
import { ChainImage, ImageMemory } from '../maps/image.ts';
import { PackWriter } from '../repository/pack-writer.ts';

/** What a leaf is taken to have read, whatever its patches: pauses depend on the time it took, too. */
const LEAF_COST_BYTES = 65_536;

const isPatched = (entry: ChunkEntry | undefined): boolean => (entry?.mask ?? 0) !== 0;

class BaseBuilder {
  private readonly chain: Chain;
  private readonly image: ChainImage;
  private readonly packs: PackWriter;
  private readonly owner: Uint8Array;

  constructor(core: Core, head: VolumeHead, chain: Chain, packs: PackWriter) {
    this.chain = chain;
    this.packs = packs;
    this.owner = core.names.ownerTag(head.server);
    this.image = new ChainImage(core, new ImageMemory(core, chain), {
      point: head.pointId,
      volume: head.volume,
    });
  }

  /** Digest of the leaf's table; null for a leaf of zeros. */
  async leaf(leaf: number): Promise<Uint8Array | null> {
    const bytes = await this.chain.read(leaf);
    const chunks = chunksInLeaf(leaf, this.chain.sizeBytes);
    if (bytes === undefined) throw new UnderstudyError('ERR_OBJECT_MISSING', `no leaf ${leaf}`);
    if (isZeroLeaf(bytes, chunks)) return null;
    const table = await this.materialised(leaf, bytes);
    return isZeroLeaf(table, chunks) ? null : this.packs.put(table, STORE_OWNER);
  }

  /** The leaf with every chunk whole. */
  private async materialised(leaf: number, bytes: Leaf): Promise<Leaf> {
    const entries = openLeaf(bytes);
    if (!entries.some(isPatched)) return bytes;
    const items: IndexedEntry[] = [];
    for (const [index, entry] of entries.entries()) {
      if (entry === undefined) continue;
      const chunk = leaf * CHUNKS_PER_LEAF + index;
      const whole = isPatched(entry) ? await this.chunk(chunk) : entry.whole;
      items.push({ index, count: 1, entry: { whole, mask: 0, blocks: [] } });
    }
    return encodeEntries(items);
  }

  private async chunk(chunk: number): Promise<ChunkEntry['whole']> {
    const length = chunkLength(chunk, this.chain.sizeBytes);
    const content = await this.image.read(chunk * CHUNK_BYTES, length);
    return content.every((byte) => byte === 0) ? 'zero' : this.packs.put(content, this.owner);
  }
}

/** Builds the base of a sealed position. Called in the lane of upkeep. */
export async function buildBase(core: Core, head: VolumeHead): Promise<void> {
  const path = core.paths.base(head, head.epoch);
  if (await core.disk.exists(path)) {
    // Maps that it stands for may go: its name must not be in doubt, as after a sync that failed.
    await core.disk.syncDirectory(core.paths.baseFolder(head));
    return;
  }
  const chain = await openChain(core, head, head.epoch, [], { root: head.chainRoot });
  const packs = new PackWriter(core);
  const table = formerTable(chain);
  try {
    const builder = new BaseBuilder(core, head, chain, packs);
    for (const leaf of changedLeaves(chain)) {
      table[leaf] = await builder.leaf(leaf);
      await core.pace.spend(LEAF_COST_BYTES);
    }
    await packs.finish();
  } catch (error) {
    await packs.abandon();
    throw error;
  }
  const { chainRoot: root, ...rest } = head;
  const info: BaseInfo = { ...rest, root };
  const temporary = temporaryPath(core);
  await writeObject(core.disk, temporary, path, [encodeBase(info, table)], async (bytes) => {
    compareTables(decodeBase(bytes, temporary).table, table);
    await compareLeaves(core, chain, bytes, temporary);
  });
}

/** The table of the base before; where there is none, one to be filled wholly. */
function formerTable({ sources: [first], sizeBytes }: Chain): (Uint8Array | null)[] {
  if (first instanceof Base) return [...first.table];
  return new Array(leafCount(sizeBytes)).fill(null);
}

/** Leaves that are not as the base before has them. */
function changedLeaves({ sources: [first, ...later] }: Chain): Generator<number> {
  return mergedLeafNumbers(first instanceof Base ? later : [first!, ...later]);
}

function compareTables(read: readonly (Uint8Array | null)[], table: typeof read): void {
  const isSame = table.every((digest, leaf) => {
    const other = read[leaf] ?? null;
    return digest === null || other === null ? digest === other : equalBytes(digest, other);
  });
  if (!isSame) throw new UnderstudyError('ERR_OBJECT_DAMAGED', 'a base reads differently');
}

/** Every leaf that was made anew says of whole chunks what the chain says. */
async function compareLeaves(
  core: Core,
  chain: Chain,
  bytes: Uint8Array,
  path: string,
): Promise<void> {
  const base = Base.over(core, bytes, path);
  for (const leaf of changedLeaves(chain)) {
    const made = openLeaf((await base.read(leaf))!);
    const from = openLeaf((await chain.read(leaf))!);
    for (const [i, entry] of from.entries()) {
      if (entry === undefined || isPatched(entry)) continue;
      const whole = made[i]?.whole ?? null;
      const isSame =
        entry.whole === 'zero' || whole === 'zero'
          ? entry.whole === whole
          : whole !== null && equalBytes(whole, entry.whole!);
      if (!isSame)
        throw new UnderstudyError('ERR_OBJECT_DAMAGED', `leaf ${leaf} reads differently`);
    }
  }
}
