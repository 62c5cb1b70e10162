/**
 * What is still needed: every digest that a map names - of points, of heads, of staged and open epochs -
 * and the tables of bases. The live set is a Bloom filter of bounded size: it may keep what is dead, and
 * never forgets what is alive.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Core, ServerState } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { parseBaseName, parseDeltaName } from '../format/layout.ts';
import { type Leaf, leafDigests } from '../leaves/leaf.ts';
import type { LeafSource } from '../leaves/leaf-source.ts';
import type { Base } from '../maps/base.ts';
import { openBase, openDelta } from '../maps/maps.ts';
import { Bloom } from '../packs/bloom.ts';
import { mapFiles } from '../repository/repository.ts';

export const MAX_FILTER_BYTES = 128 * 1024 * 1024;
/** Leaf tables that were marked already are remembered up to this many. */
const MAX_SEEN = 200_000;

/** A filter of everything that is alive. */
export async function markLive(core: Core, pieces: number): Promise<Bloom> {
  const filter = Bloom.sized(Math.max(pieces, 1024), MAX_FILTER_BYTES);
  await new Walk(core, (digest) => filter.add(digest)).all();
  return filter;
}

/** Which of `candidates` (hex digests) are alive: exact, for the few that the filter cannot tell. */
export async function confirmLive(
  core: Core,
  candidates: ReadonlySet<string>,
): Promise<Set<string>> {
  const alive = new Set<string>();
  if (candidates.size === 0) return alive;
  await new Walk(core, (digest) => {
    const name = toHex(digest);
    if (candidates.has(name)) alive.add(name);
  }).all();
  return alive;
}

/** Visits every digest that a map names. */
export class Walk {
  private readonly core: Core;
  private readonly visit: (digest: Uint8Array) => void;
  private readonly seenTables = new Set<string>();

  constructor(core: Core, visit: (digest: Uint8Array) => void) {
    this.core = core;
    this.visit = visit;
  }

  /** What arrives meanwhile is watched by the index (PieceIndex.watch). */
  async all(): Promise<void> {
    await this.servers();
    for (const path of await mapFiles(this.core, this.core.paths.deltas, parseDeltaName)) {
      await this.source(await openDelta(this.core, path));
    }
    for (const path of await mapFiles(this.core, this.core.paths.bases, parseBaseName)) {
      await this.base(await openBase(this.core, path));
    }
  }

  /** What is staged or open. */
  async servers(): Promise<void> {
    for (const server of this.core.servers.values()) await this.markServer(server);
  }

  /** Staged and open epochs as they are between two calls of the session. */
  private async markServer(server: ServerState, tries = 10): Promise<void> {
    const sources = await server.mutex.run(async () => {
      const found: LeafSource[] = [];
      for (const { open, staged } of server.volumes.values()) {
        for (const layer of open?.memorySources() ?? []) {
          for (const bytes of layer.leaves.values()) this.leaf(bytes);
        }
        found.push(...(open?.runFiles ?? []), ...staged.map(({ source }) => source));
      }
      return found;
    });
    try {
      for (const source of sources) await this.source(source);
    } catch (error) {
      // A run has been merged or its epoch sealed meanwhile: what it said is elsewhere now.
      if (tries === 0 || !isGone(error)) throw error;
      await this.markServer(server, tries - 1);
    }
  }

  async source(source: LeafSource): Promise<void> {
    const numbers = source.leafNumbers();
    for (let i = 0; i < numbers.length; i += 1) {
      const bytes = await source.read(numbers[i]!);
      if (bytes === undefined) continue;
      this.leaf(bytes);
      await this.core.pace.spend(bytes.length);
    }
  }

  async base(base: Base): Promise<void> {
    for (const [leaf, digest] of base.table.entries()) {
      if (digest === null) continue;
      this.visit(digest);
      const key = Buffer.from(digest).toString('latin1');
      if (this.seenTables.has(key)) continue;
      if (this.seenTables.size < MAX_SEEN) this.seenTables.add(key);
      const bytes = (await base.read(leaf))!;
      this.leaf(bytes);
      await this.core.pace.spend(bytes.length);
    }
  }

  leaf(bytes: Leaf): void {
    for (const digest of leafDigests(bytes)) this.visit(digest);
  }
}

const isGone = (error: unknown): boolean =>
  error instanceof UnderstudyError && error.code === 'ERR_DISK_NOT_FOUND';
