/**
 * Builds the map of an epoch that is being committed: in memory while it is small, in a temporary file
 * from then on (a generation's first map may be gigabytes; nothing here grows with the volume).
 */
import { assert } from '../../base/errors.ts';
import { type Core, type StagedMap, temporaryPath } from '../core.ts';
import { equalBytes } from '../format/checksum.ts';
import { discard } from '../format/object-file.ts';
import type { OpenEpoch } from '../journal/open-epoch.ts';
import type { Leaf } from '../leaves/leaf.ts';
import { LeafDigest, LeafFile, type LeafFileInfo, LeafFileWriter } from '../leaves/leaf-file.ts';
import { MemoryLeaves } from '../leaves/leaf-source.ts';
import { nextRoot } from './chain-root.ts';

type Unrooted = Omit<LeafFileInfo, 'root'>;

export class MapBuilder {
  private readonly core: Core;
  private readonly info: Unrooted;
  private leaves = new Map<number, Leaf>();
  private bytes = 0;
  private readonly digest = new LeafDigest();
  private file: { writer: LeafFileWriter; path: string } | null = null;

  constructor(core: Core, info: Unrooted) {
    this.core = core;
    this.info = info;
  }

  /** Leaves ascend. */
  async add(leaf: number, bytes: Leaf): Promise<void> {
    if (this.file !== null) return this.file.writer.add(leaf, bytes);
    this.digest.add(leaf, bytes);
    this.leaves.set(leaf, bytes);
    this.bytes += bytes.length;
    if (this.bytes > this.core.settings.commitMemoryBytes) await this.moveToFile();
  }

  async finish(open: OpenEpoch): Promise<StagedMap> {
    const { runFiles: runs, oldestSegment } = open;
    const parts = { runs, memory: open.memorySources(), oldestSegment };
    if (this.file === null) {
      const leafDigest = this.digest.take();
      const info = this.rooted(leafDigest);
      const source = new MemoryLeaves(this.leaves);
      return { info, source, leafDigest, file: null, ...parts };
    }
    const { writer, path } = this.file;
    const leafDigest = await writer.finishLeaves();
    const info = this.rooted(leafDigest);
    await writer.finish('US-DELTA', info, leafDigest);
    const source = await LeafFile.open(this.core.files, path, 'US-DELTA');
    this.file = null;
    return { info, source, leafDigest, file: source, ...parts };
  }

  /** Gives the temporary file up, where there is one. */
  async abandon(): Promise<void> {
    if (this.file === null) return;
    const { writer, path } = this.file;
    this.file = null;
    await writer.abandon();
    await discard(this.core.disk, path);
  }

  private rooted(leafDigest: Uint8Array): LeafFileInfo {
    return { ...this.info, root: nextRoot(this.info.previousRoot, leafDigest) };
  }

  private async moveToFile(): Promise<void> {
    const path = temporaryPath(this.core);
    const info = { ...this.info, root: '0'.repeat(64) };
    const writer = await LeafFileWriter.create(this.core.disk, path, 'US-DELTA', info);
    this.file = { writer, path };
    for (const [leaf, bytes] of this.leaves) await writer.add(leaf, bytes);
    this.leaves = new Map();
  }
}

/** Writes a small delta to a file of its own, synced. */
export async function writeDeltaFile(core: Core, map: StagedMap, path: string): Promise<void> {
  const writer = await LeafFileWriter.create(core.disk, path, 'US-DELTA', map.info);
  try {
    const numbers = map.source.leafNumbers();
    for (let i = 0; i < numbers.length; i += 1) {
      const bytes = await map.source.read(numbers[i]!);
      assert(bytes !== undefined, 'a source has the leaves that it lists');
      await writer.add(numbers[i]!, bytes);
    }
    const digest = await writer.finishLeaves();
    assert(equalBytes(digest, map.leafDigest), 'a staged map does not change');
    await writer.finish('US-DELTA', map.info, digest);
  } catch (error) {
    await writer.abandon();
    await discard(core.disk, path);
    throw error;
  }
}
