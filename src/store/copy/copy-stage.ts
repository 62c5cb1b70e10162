/**
 * Puts single maps of the source at the destination of a copy, under temporary names, checks them - as
 * whose they are, their leaves, the roots that they link - and has the destination hold every content
 * that they name. What is wrong is the source's and told as HurtSource, with the map where another one
 * may say the same.
 */
import type { Disk } from '../../base/disk.ts';
import { inOrder } from '../../base/in-order.ts';
import type { Span } from '../../model/fold-plan.ts';
import { type Core, temporaryPath } from '../core.ts';
import { equalBytes, toHex } from '../format/checksum.ts';
import { type MapPlace, STORE_OWNER } from '../format/layout.ts';
import { discard } from '../format/object-file.ts';
import { damaged, isDamage } from '../format/object-header.ts';
import { leafDigests, missingChunks } from '../leaves/leaf.ts';
import { LeafDigest, LeafFile, type LeafFileInfo } from '../leaves/leaf-file.ts';
import type { LeafSource } from '../leaves/leaf-source.ts';
import { decodeBase, type RootTable } from '../maps/base.ts';
import { listMaps } from '../maps/chain.ts';
import { nextRoot } from '../maps/chain-root.ts';
import { writeFold } from '../upkeep/map-upkeep.ts';
import { type ContentCopier, fromSource, HurtSource, type Spend } from './copy-contents.ts';

const READ_BYTES = 1024 * 1024;
/** So many tables of leaves are read at a time where the source is far away. */
const FAR_TABLES = 4;

/** An object under a temporary name, and the name that it is to get. */
export interface Staged {
  readonly temporary: string;
  readonly path: string;
  readonly bytes: number;
}
export interface StagedMap extends Staged {
  /** Root at its end. */
  readonly root: string;
  /** What a delta covers; null: a base. */
  readonly span: Span | null;
}

export class MapStager {
  private readonly source: Core;
  private readonly target: Core;
  private readonly contents: ContentCopier;
  private readonly spend: Spend;
  /** The newest base of a volume at the destination, of the volume that was looked at last. */
  private known: { path: string; table: RootTable } = { path: '', table: [] };

  constructor(source: Core, target: Core, contents: ContentCopier, spend: Spend) {
    this.source = source;
    this.target = target;
    this.contents = contents;
    this.spend = spend;
  }

  /** A base byte for byte, with the tables of its leaves. */
  async base(place: MapPlace, epoch: number, sizeBytes: number): Promise<StagedMap> {
    const path = this.source.paths.base(place, epoch);
    const bytes = await fromSource(() => this.source.disk.readFile(path), path);
    const { info, table } = await fromSource(async () => {
      const base = decodeBase(bytes, path);
      assertPlace(base.info, place, path);
      if (base.info.epoch === epoch && base.info.sizeBytes === sizeBytes) return base;
      throw damaged(path, 'another base than its name says');
    }, path);
    try {
      await this.copyTables(place, sizeBytes, table);
    } catch (error) {
      if (!(error instanceof HurtSource)) throw error;
      throw new HurtSource(error.cause as Error, path); // another base may do
    }
    const temporary = temporaryPath(this.target);
    await writeTemporary(this.target.disk, temporary, [bytes]);
    await this.spend({ read: bytes.length, written: bytes.length });
    const name = this.target.paths.base(place, epoch);
    return { temporary, path: name, bytes: bytes.length, root: info.root, span: null };
  }

  /** One delta byte for byte; several as one. `before`: root of the map that it lies over. */
  async deltas(
    place: MapPlace,
    spans: readonly Span[],
    before: string,
    sizeBytes: number,
  ): Promise<StagedMap> {
    const span = { from: spans[0]!.from, to: spans.at(-1)!.to };
    const temporary = temporaryPath(this.target);
    const path = this.source.paths.delta(place, span.from, span.to);
    try {
      if (spans.length === 1) await this.copyFile(path, temporary);
      else await this.fold(place, spans, temporary);
      const { info, fileBytes: bytes } = await this.lookThrough(temporary, path, (found) => {
        assertPlace(found, place, path);
        const isNamed = found.from === span.from && found.to === span.to;
        if (!isNamed || found.sizeBytes !== sizeBytes) {
          throw damaged(path, 'another delta than its name says');
        }
        if (found.previousRoot !== before) throw damaged(path, 'the chain is broken');
      });
      const name = this.target.paths.delta(place, span.from, span.to);
      return { temporary, path: name, bytes, root: info.root, span };
    } catch (error) {
      await discard(this.target.disk, temporary);
      throw error;
    }
  }

  /**
   * Tables of leaves, and what they name. A table that another base at the destination has at the same
   * leaf is there with all its contents; of any other nothing is taken for granted.
   */
  private async copyTables(place: MapPlace, sizeBytes: number, table: RootTable): Promise<void> {
    const known = await this.knownTable(place);
    const owner = this.target.names.ownerTag(place.server);
    const fresh = [...table.entries()].flatMap(([leaf, digest]) => {
      const former = known[leaf] ?? null;
      const isKnown = digest === null || (former !== null && equalBytes(former, digest));
      return isKnown ? [] : [{ leaf, digest }];
    });
    const looked = inOrder(fresh, this.tablesAhead, async ({ leaf, digest }) => ({
      ...{ leaf, digest },
      bytes: await this.contents.look(digest),
    }));
    for await (const { leaf, digest, bytes } of looked) {
      const named = await fromSource(async () => {
        const [chunk] = missingChunks(leaf, bytes, sizeBytes);
        if (chunk === undefined) return [...leafDigests(bytes)];
        throw damaged(toHex(digest), `the table of leaf ${leaf} lacks chunk ${chunk}`);
      });
      for (const content of named) await this.contents.want(content, owner);
      await this.contents.put(bytes, STORE_OWNER);
    }
    await this.contents.settle();
  }

  private get tablesAhead(): number {
    return this.source.disk.far === undefined ? 1 : FAR_TABLES;
  }

  /** Of the newest base that the destination has of the volume, under its name; empty where none. */
  private async knownTable(place: MapPlace): Promise<RootTable> {
    const { servers, disk, paths } = this.target;
    const head = servers.get(place.server)?.volumes.get(place.volume)?.head;
    for (const generation of new Set([place.generation, head?.generation ?? place.generation])) {
      const at = { ...place, generation };
      const { bases } = await listMaps(this.target, at);
      if (bases.length === 0) continue;
      const path = paths.base(at, Math.max(...bases));
      if (this.known.path === path) return this.known.table;
      try {
        this.known = { path, table: decodeBase(await disk.readFile(path), path).table };
        return this.known.table;
      } catch (error) {
        if (!isDamage(error)) throw error; // the next one, or none: nothing is taken for granted
      }
    }
    return [];
  }

  private async copyFile(path: string, temporary: string): Promise<void> {
    const { files } = this.source;
    const buffer = new Uint8Array(READ_BYTES);
    const file = await this.target.disk.open(temporary, 'create');
    try {
      for (let at = 0; ; ) {
        const read = () => files.with(path, (from) => from.read(buffer, at));
        const count = await fromSource(read, path);
        if (count === 0) break;
        await file.write([buffer.subarray(0, count)], at);
        await this.spend({ read: count, written: count });
        at += count;
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }

  private async fold(place: MapPlace, spans: readonly Span[], temporary: string): Promise<void> {
    const inputs: LeafFile[] = [];
    for (const { from, to } of spans) {
      const path = this.source.paths.delta(place, from, to);
      const file = await fromSource(() => LeafFile.open(this.source.files, path, 'US-DELTA'), path);
      const before = inputs.at(-1)?.info.root ?? file.info.previousRoot;
      if (file.info.previousRoot !== before) {
        throw new HurtSource(damaged(path, 'the chain is broken'), path);
      }
      inputs.push(file);
    }
    const { from, previousRoot } = inputs[0]!.info;
    const info = { ...inputs.at(-1)!.info, from, previousRoot };
    await writeFold(this.target, temporary, info, inputs.map(guarded));
    const size = await this.target.files.with(temporary, (file) => file.size());
    await this.spend({ read: size, written: size });
  }

  /** Checks a delta that is staged, and has the destination hold what it names. */
  private async lookThrough(
    temporary: string,
    path: string,
    judge: (info: LeafFileInfo) => void,
  ): Promise<LeafFile> {
    const map = await fromSource(async () => {
      const file = await LeafFile.open(this.target.files, temporary, 'US-DELTA');
      judge(file.info);
      return file;
    }, path);
    const digest = new LeafDigest();
    const owner = this.target.names.ownerTag(map.info.server);
    const numbers = map.leafNumbers();
    for (let i = 0; i < numbers.length; i += 1) {
      const named = await fromSource(async () => {
        const bytes = (await map.read(numbers[i]!))!;
        digest.add(numbers[i]!, bytes);
        return [...leafDigests(bytes)];
      }, path);
      for (const content of named) await this.contents.want(content, owner);
    }
    await this.contents.settle();
    const found = digest.take();
    const { from, to, previousRoot, root } = map.info;
    const isProved = to !== from + 1 || nextRoot(previousRoot, found) === root;
    if (equalBytes(found, map.leafDigest) && isProved) return map;
    throw new HurtSource(damaged(path, 'the leaves are not those of the header'), path);
  }
}

/** Whose map a file says that it is, against its place. */
function assertPlace(info: MapPlace, place: MapPlace, path: string): void {
  const { server, volume, generation } = info;
  const isSame =
    server === place.server && volume === place.volume && generation === place.generation;
  if (!isSame) throw damaged(path, 'the map of another volume');
}

/** Damage of an input is the source's. */
const guarded = (file: LeafFile): LeafSource => ({
  leafNumbers: () => file.leafNumbers(),
  has: (leaf) => file.has(leaf),
  read: (leaf) => fromSource(() => file.read(leaf), file.path),
});

/** Durable as a file; its name is not one of the repository. */
export async function writeTemporary(
  disk: Disk,
  path: string,
  bytes: readonly Uint8Array[],
): Promise<void> {
  const file = await disk.open(path, 'create');
  try {
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
}
