/**
 * Passes of a failback over the disks: from the service's answers to what is written, and the figures of
 * it. A disk that this process has made equal to one point is compared for the next only where the two
 * points differ.
 */
import { UnderstudyError } from '../base/errors.ts';
import { formatSize } from '../base/units.ts';
import type { Extent } from '../model/geometry.ts';
import { ChunkSet } from '../recovery/failback/chunk-set.ts';
import { checkTarget } from '../recovery/failback/target-check.ts';
import {
  type HomeReport,
  type HomeSource,
  type HomeStage,
  verifyHome,
  writeHome,
} from '../recovery/failback/write-home.ts';
import type { ApiComparison, ApiDifferences } from '../staging/api-types.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import type { OpenTarget } from './failback-targets.ts';
import { volumePath } from './operator.ts';
import type { RestClient } from './rest-client.ts';

export interface VolumePass extends HomeReport {
  readonly volume: string;
  readonly target: string;
}
export interface PassReport {
  readonly point: string;
  readonly volumes: readonly VolumePass[];
}
export interface VolumeTotal extends VolumePass {
  readonly sizeBytes: number;
  readonly undo: string | null;
  readonly undoBytes: number;
}

export function renderPass({ point, volumes }: PassReport): string {
  const lines = volumes.map(({ volume, target, chunks, different, writtenBytes, fetchedBytes }) => {
    const counts = `${different} of ${chunks} chunks compared differed`;
    const sizes = `${formatSize(writtenBytes)} written, ${formatSize(fetchedBytes)} fetched`;
    return `${target}: ${volume} at ${point}: ${counts}, ${sizes}`;
  });
  return lines.join('\n');
}

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));

export class HomeWriter {
  readonly passes: PassReport[] = [];
  private readonly context: CommandContext;
  private readonly client: RestClient;
  /** By path of the target: the point that it is equal to, as far as this process wrote it. */
  private readonly equalTo = new Map<string, { point: string; sizeBytes: number }>();
  /** By path of the target. */
  private readonly written = new Map<string, ChunkSet>();

  constructor(context: CommandContext, client: RestClient) {
    this.context = context;
    this.client = client;
  }

  get last(): PassReport | undefined {
    return this.passes.at(-1);
  }

  async pass({ id: point }: ListedPoint, targets: readonly OpenTarget[]): Promise<PassReport> {
    const volumes: VolumePass[] = [];
    for (const target of targets) {
      const { volume, path } = target;
      volumes.push({ volume, target: path, ...(await this.write(point, target)) });
    }
    const report = { point, volumes };
    this.passes.push(report);
    return report;
  }

  /**
   * Reads back all chunks of the disks, or those alone that this process has written (what it did not write it
   * has compared, and nobody else had the disk). Returns how many. ERR_FAILBACK_MISMATCH.
   */
  async verify(
    point: string,
    targets: readonly OpenTarget[],
    scope: 'all' | 'written',
  ): Promise<number> {
    let count = 0;
    for (const { volume, file, path } of targets) {
      const source = await this.source(point, volume);
      const extents = scope === 'all' ? null : this.writtenTo(path, source.sizeBytes);
      const { chunks } = await this.shown(volume, (onProgress) =>
        verifyHome(source, file, extents, { stop: this.context.stop, onProgress }),
      );
      count += chunks;
    }
    return count;
  }

  private writtenTo(path: string, sizeBytes: number): Extent[] {
    const written = [...(this.written.get(path)?.extents() ?? [])];
    return written
      .filter(({ offset }) => offset < sizeBytes)
      .map(({ offset, length }) => ({ offset, length: Math.min(length, sizeBytes - offset) }));
  }

  /** Over all passes; `chunks` of the first, which looked at all of the disk. */
  totals(targets: readonly OpenTarget[]): VolumeTotal[] {
    return targets.map(({ volume, path, sizeBytes, undo, undoPath }) => {
      const own = this.passes.flatMap((pass) => pass.volumes.filter((v) => v.volume === volume));
      const sum = (of: (pass: VolumePass) => number) => own.reduce((all, one) => all + of(one), 0);
      return {
        ...{ volume, target: path, sizeBytes, chunks: own[0]?.chunks ?? 0 },
        different: sum((one) => one.different),
        writtenBytes: sum((one) => one.writtenBytes),
        fetchedBytes: sum((one) => one.fetchedBytes),
        ...{ undo: undoPath, undoBytes: undo?.keptBytes ?? 0 },
      };
    });
  }

  private async write(point: string, target: OpenTarget): Promise<HomeReport> {
    const { volume, file, undo, path, facts } = target;
    const source = await this.source(point, volume);
    const { sizeBytes } = source;
    const before = this.equalTo.get(path);
    // What lies behind the end of a volume is the disk's own: once it grows nothing is known of that.
    const isAlike = before?.sizeBytes === sizeBytes;
    checkTarget(facts, { volume, sizeBytes, sectorBytes: facts.sectorBytes }, []);
    const extents = isAlike ? await this.differences(before.point, point, volume) : null;
    // Until it is through, it is equal to neither.
    this.equalTo.delete(path);
    const written = this.written.get(path) ?? new ChunkSet(facts.sizeBytes);
    this.written.set(path, written);
    const { stop } = this.context;
    const onWrite = (stretch: Extent) => written.add(stretch);
    const report = await this.shown(volume, (onProgress) =>
      writeHome(source, file, extents, { undo, stop, onProgress, onWrite }),
    );
    this.equalTo.set(path, { point, sizeBytes });
    return report;
  }

  /** Null where the older point is gone: all is compared. */
  private async differences(from: string, to: string, volume: string): Promise<Extent[] | null> {
    const path = `${volumePath(to, volume)}/differences`;
    const extents: Extent[] = [];
    try {
      for (let offset: number | null = 0; offset !== null; ) {
        const query = { from, offset };
        const page: ApiDifferences = await this.client.call<ApiDifferences>('GET', path, { query });
        extents.push(...page.extents);
        offset = page.next;
      }
    } catch (error) {
      if (error instanceof UnderstudyError && error.code === 'ERR_POINT_NOT_FOUND') return null;
      throw error;
    }
    return extents;
  }

  private async source(point: string, volume: string): Promise<HomeSource> {
    const path = volumePath(point, volume);
    const { client } = this;
    const { sizeBytes, etag } = await client.head(`${path}/image`);
    return {
      sizeBytes,
      compare: async (first, digests) => {
        const body = { first, digests: Buffer.from(digests).toString('base64') };
        const { different, zero, count } = await client.call<ApiComparison>(
          'POST',
          `${path}/compare`,
          { body },
        );
        return { different: bytesOf(different), zero: bytesOf(zero), count };
      },
      read: (offset, length) => client.range(`${path}/image`, offset, length, etag),
    };
  }

  private async shown<T>(
    volume: string,
    work: (onProgress: (stage: HomeStage, done: number, total: number) => void) => Promise<T>,
  ): Promise<T> {
    const progress = this.context.progress(volume);
    try {
      return await work((stage, done, total) => progress.update(done, total, stage));
    } finally {
      progress.finish();
    }
  }
}
