/**
 * Reads back what lies at the destination of a copy: what one run has written, or all that is there. Names
 * and checksums tell whether it is what the source has; where it is not, the finding says so.
 */

import { checkRepository } from '../check/check.ts';
import { findingOf } from '../check/check-finding.ts';
import { readPieces } from '../check/check-packs.ts';
import type { Core } from '../core.ts';
import { equalBytes } from '../format/checksum.ts';
import { damaged } from '../format/object-header.ts';
import { LeafDigest, LeafFile } from '../leaves/leaf-file.ts';
import { decodeBase } from '../maps/base.ts';
import { FileCache } from '../packs/file-cache.ts';
import { entriesOf, readPack } from '../packs/pack-entries.ts';
import { decodePointObject } from '../points/point-format.ts';
import type { Finding } from '../types.ts';

export interface Verified {
  readonly objects: number;
  readonly pieces: number;
  readonly bytesRead: number;
  readonly findings: readonly Finding[];
}

/** Called with what is about to be read; may wait, and may throw to end it. */
type Spend = (bytes: number) => Promise<void>;

/** Everything, as a check with all contents does. */
export async function verifyAll(target: Core): Promise<Verified> {
  const report = await checkRepository(target, { points: [], maps: [] }, { readData: true });
  const { objects, pieces, bytesRead, findings } = report;
  return { objects, pieces, bytesRead, findings };
}

/** What was written: packs, and other objects by their paths. */
export async function verifyNew(
  target: Core,
  packs: readonly string[],
  objects: readonly string[],
  spend: Spend,
): Promise<Verified> {
  // Files that this run has open were read under their temporary names.
  const files = new FileCache(target.disk, undefined, target.vault);
  const read = new ReadBack(target, files, spend);
  try {
    for (const path of packs) await read.look(path, () => read.pack(path));
    for (const path of objects) await read.look(path, () => read.object(path));
    return read.result(packs.length + objects.length);
  } finally {
    await files.close();
  }
}

class ReadBack {
  private readonly findings: Finding[] = [];
  private pieces = 0;
  private bytesRead = 0;
  private readonly target: Core;
  private readonly files: FileCache;
  private readonly spend: Spend;

  constructor(target: Core, files: FileCache, spend: Spend) {
    this.target = target;
    this.files = files;
    this.spend = spend;
  }

  result(objects: number): Verified {
    const { pieces, bytesRead, findings } = this;
    return { objects, pieces, bytesRead, findings };
  }

  async look(path: string, read: () => Promise<void>): Promise<void> {
    try {
      await read();
    } catch (error) {
      this.findings.push(findingOf(error, path, []));
    }
  }

  async pack(path: string): Promise<void> {
    const { files } = this;
    const entries = [...entriesOf(await readPack(files, path))];
    const wrong = new Map<string, string[]>();
    const totals = { pieces: 0, bytesRead: 0 };
    await readPieces({ files }, path, entries, wrong, totals);
    this.pieces += entries.length;
    await this.count(totals.bytesRead);
    if (wrong.size === 0) return;
    throw damaged(path, `${wrong.size} of ${entries.length} contents read differently`);
  }

  async object(path: string): Promise<void> {
    if (path.endsWith('.delta')) return this.delta(path);
    const bytes = await this.target.disk.readFile(path);
    await this.count(bytes.length);
    if (path.endsWith('.base')) decodeBase(bytes, path);
    if (path.endsWith('.point')) decodePointObject(bytes, path);
  }

  private async delta(path: string): Promise<void> {
    const map = await LeafFile.open(this.files, path, 'US-DELTA');
    const digest = new LeafDigest();
    const numbers = map.leafNumbers();
    for (let i = 0; i < numbers.length; i += 1) {
      digest.add(numbers[i]!, (await map.read(numbers[i]!))!);
    }
    await this.count(map.fileBytes);
    if (!equalBytes(digest.take(), map.leafDigest)) throw damaged(path, 'the leaves differ');
  }

  private async count(bytes: number): Promise<void> {
    this.bytesRead += bytes;
    await this.spend(bytes);
  }
}
