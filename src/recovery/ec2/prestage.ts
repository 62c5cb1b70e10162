/**
 * Keeps a rolling chain of EBS snapshots, one for each volume of a server, up to date with its points, so
 * that a failover uploads only the last difference. One call brings every volume to one point; who calls it,
 * and how often, is the caller's. A chain is taken up again where it was interrupted, and begun anew where it
 * has to be. A snapshot is deleted only after its successor is completed and written down.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Extent } from '../../model/geometry.ts';
import type { BlockImage } from '../image-overlay.ts';
import type { AwsConnection } from './aws-connection.ts';
import { sizeGiB } from './block-image.ts';
import { type ChainHead, type ChainStep, keyOf, planStep, toDelete } from './chain.ts';
import { Ec2Calls } from './ec2-calls.ts';
import type { LaunchPlan } from './launch-plan.ts';
import type { PutQuota } from './put-quota.ts';
import { tagsOf } from './tags.ts';
import { uploadSnapshot } from './upload.ts';
import type { UploadRecord } from './upload-record.ts';

export interface ChainVolume {
  readonly volume: string;
  readonly head: ChainHead | null;
  /** Under way, towards this point. */
  readonly upload: { readonly point: string; readonly record: UploadRecord } | null;
  /** All snapshots of the chain that may exist, the head too. */
  readonly held: readonly string[];
}

export interface ChainRecord {
  readonly version: 1;
  /** The tag of all its snapshots, and part of their tokens. */
  readonly job: string;
  readonly server: string;
  /** Where its snapshots are; not there: as the environment had it. */
  readonly region?: string | null;
  readonly volumes: readonly ChainVolume[];
}

export interface ChainJournal {
  load(): Promise<ChainRecord | null>;
  save(record: ChainRecord): Promise<void>;
}

export interface PrestageSource {
  readonly volume: string;
  readonly image: BlockImage;
  /** What differs between that point and this one; null where it cannot be told any more. */
  readonly changedSince: (
    fromPoint: string,
  ) => Promise<(() => AsyncIterable<Extent> | Iterable<Extent>) | null>;
}

export interface PrestageOptions {
  /** Names a chain that is begun; one that is written down has its name already. */
  readonly job: string;
  readonly server: string;
  readonly point: string;
  readonly plan: Pick<LaunchPlan, 'encryption' | 'tags' | 'region'>;
  readonly sources: readonly PrestageSource[];
  readonly journal: ChainJournal;
  readonly quota: PutQuota;
  readonly stop: AbortSignal;
  readonly concurrency?: number;
  readonly timeoutMinutes: number;
  readonly onProgress: (volume: string, doneBytes: number, totalBytes: number) => void;
  readonly onNote: (text: string) => void;
}

export interface PrestagedVolume {
  readonly volume: string;
  readonly snapshotId: string;
  readonly kind: ChainStep['kind'];
  readonly putBlocks: number;
}

export const newChain = (job: string, server: string, region: string | null): ChainRecord => ({
  ...{ version: 1, job, server, region, volumes: [] },
});

/**
 * One volume after the other, then what belongs to none of them goes. Throws ERR_AWS_*, ERR_EC2_*, and what
 * images and journal throw.
 */
export async function prestage(
  aws: AwsConnection,
  options: PrestageOptions,
): Promise<PrestagedVolume[]> {
  const chain = new Chain(aws, options);
  await chain.open();
  const done: PrestagedVolume[] = [];
  for (const source of options.sources) done.push(await chain.advance(source));
  await chain.tidy();
  return done;
}

/** Deletes all snapshots of a chain; true where none is left: one that an image uses stays, and written down. */
export async function endChain(
  aws: AwsConnection,
  { journal, stop }: Pick<PrestageOptions, 'journal' | 'stop'>,
): Promise<boolean> {
  const record = await journal.load();
  if (record === null) return true;
  const ec2 = new Ec2Calls(aws, stop);
  const held = record.volumes.flatMap((volume) => volume.held);
  const left = new Set<string>();
  for (const id of new Set([...held, ...(await ec2.snapshotsOf(record.job))])) {
    if ((await ec2.deleteSnapshot(id)) === 'in-use') left.add(id);
  }
  const volumes = record.volumes.flatMap((volume) => {
    const ids = volume.held.filter((id) => left.has(id));
    return ids.length === 0 ? [] : [{ ...volume, head: null, upload: null, held: ids }];
  });
  await journal.save({ ...record, volumes });
  return left.size === 0;
}

class Chain {
  private readonly aws: AwsConnection;
  private readonly options: PrestageOptions;
  private readonly ec2: Ec2Calls;
  private record: ChainRecord;

  constructor(aws: AwsConnection, options: PrestageOptions) {
    this.aws = aws;
    this.options = options;
    this.ec2 = new Ec2Calls(aws, options.stop);
    this.record = newChain(options.job, options.server, options.plan.region);
  }

  async open(): Promise<void> {
    const held = await this.options.journal.load();
    if (held === null) return this.options.journal.save(this.record);
    if (held.server !== this.options.server) {
      const message = `the chain is of ${held.server}, not of ${this.options.server}`;
      throw new UnderstudyError('ERR_EC2_RECORD', message);
    }
    this.record = held;
  }

  async advance(source: PrestageSource): Promise<PrestagedVolume> {
    const { volume, image, changedSince } = source;
    await this.giveUpOther(volume);
    const { head, upload } = this.volume(volume);
    const begun = upload?.record.request.parentSnapshotId;
    const changed = head === null ? null : await changedSince(head.point);
    const step = planStep(head, {
      point: this.options.point,
      sizeGiB: sizeGiB(image.sizeBytes),
      encryption: this.options.plan.encryption,
      isHeadThere: head !== null && (await this.isCompleted(head.snapshotId)),
      isDeltaKnown: changed !== null,
    });
    if (step.kind === 'keep') {
      await this.sweep(volume);
      return { volume, snapshotId: step.snapshotId, kind: 'keep', putBlocks: 0 };
    }
    const parent = step.kind === 'delta' ? step.parentSnapshotId : null;
    if (begun !== undefined && begun !== parent) await this.giveUp(volume);
    if (head !== null && step.kind === 'full') {
      this.options.onNote(`${volume}: a new chain begins (${step.reason})`);
    }
    const done = await this.upload(source, parent, parent === null ? null : changed);
    await this.sweep(volume);
    return { volume, ...done, kind: step.kind };
  }

  /** Volumes that the server has no more, and snapshots that were begun in the instant before a crash. */
  async tidy(): Promise<void> {
    const wanted = new Set(this.options.sources.map(({ volume }) => volume));
    for (const { volume, held } of this.record.volumes.filter((each) => !wanted.has(each.volume))) {
      const left: string[] = [];
      for (const id of held) if ((await this.ec2.deleteSnapshot(id)) === 'in-use') left.push(id);
      if (left.length > 0) await this.change(volume, { head: null, upload: null, held: left });
      else await this.forget(volume);
    }
    const known = new Set(this.record.volumes.flatMap(({ held }) => held));
    const all = await this.ec2.snapshotsOf(this.record.job);
    for (const id of all) if (!known.has(id)) await this.ec2.deleteSnapshot(id);
  }

  private async upload(
    { volume, image }: PrestageSource,
    parentSnapshotId: string | null,
    changed: (() => AsyncIterable<Extent> | Iterable<Extent>) | null,
  ): Promise<{ snapshotId: string; putBlocks: number }> {
    const { server, point, plan, quota, stop, concurrency, timeoutMinutes } = this.options;
    const { onProgress, onNote } = this.options;
    const { job } = this.record;
    const size = sizeGiB(image.sizeBytes);
    const former = this.volume(volume).head?.snapshotId ?? 'nothing';
    const under = plan.encryption === null ? '' : ` under ${keyOf(plan.encryption)}`;
    const done = await uploadSnapshot(this.aws, {
      image,
      changed,
      request: {
        // A chain that is begun anew at the same point, or under another key, is another upload.
        key: `${job} ${volume} ${point} ${parentSnapshotId ?? `whole after ${former}${under}`}`,
        sizeGiB: size,
        description: `understudy: ${server} ${volume} at ${point}`,
        tags: tagsOf(job, { server, point, volume }, plan.tags),
        parentSnapshotId,
        encryption: plan.encryption,
        timeoutMinutes,
      },
      journal: {
        load: async () => this.volume(volume).upload?.record ?? null,
        save: (record) => this.saveUpload(volume, record),
      },
      lane: quota.backgroundLane(),
      stop,
      ...(concurrency !== undefined && { concurrency }),
      onProgress: (bytes) => onProgress(volume, bytes, image.sizeBytes),
      onNote,
    });
    const { snapshotId } = done;
    const head = { snapshotId, point, sizeGiB: size, encryption: plan.encryption };
    await this.change(volume, { head, upload: null });
    return done;
  }

  private saveUpload(volume: string, record: UploadRecord): Promise<void> {
    const { held } = this.volume(volume);
    const { snapshotId } = record;
    const isNew = snapshotId !== null && !held.includes(snapshotId);
    return this.change(volume, {
      upload: { point: this.options.point, record },
      ...(isNew && { held: [...held, snapshotId] }),
    });
  }

  /** An upload towards another point, or under another key: what it put is of no use for this one. */
  private async giveUpOther(volume: string): Promise<void> {
    const { upload } = this.volume(volume);
    if (upload === null) return;
    const { point, plan } = this.options;
    const isSameKey = keyOf(upload.record.request.encryption) === keyOf(plan.encryption);
    if (upload.point !== point || !isSameKey) await this.giveUp(volume);
  }

  /** Its snapshot is among those held, and is swept once there is a head. */
  private giveUp(volume: string): Promise<void> {
    return this.change(volume, { upload: null });
  }

  /** Deletes what the head has replaced; what an image refers to stays written down for the next time. */
  private async sweep(volume: string): Promise<void> {
    const { head, held } = this.volume(volume);
    const used = new Set<string>();
    for (const id of toDelete(held, head!.snapshotId, used)) {
      if ((await this.ec2.deleteSnapshot(id)) === 'in-use') used.add(id);
    }
    const gone = new Set(toDelete(held, head!.snapshotId, used));
    if (gone.size > 0) await this.change(volume, { held: held.filter((id) => !gone.has(id)) });
  }

  private async isCompleted(id: string): Promise<boolean> {
    return (await this.ec2.snapshot(id))?.State === 'completed';
  }

  private volume(volume: string): ChainVolume {
    const none = { volume, head: null, upload: null, held: [] };
    return this.record.volumes.find((held) => held.volume === volume) ?? none;
  }

  private forget(volume: string): Promise<void> {
    const volumes = this.record.volumes.filter((held) => held.volume !== volume);
    this.record = { ...this.record, volumes };
    return this.options.journal.save(this.record);
  }

  private change(volume: string, change: Partial<ChainVolume>): Promise<void> {
    const changed = { ...this.volume(volume), ...change };
    const others = this.record.volumes.filter((held) => held.volume !== volume);
    this.record = { ...this.record, volumes: [...others, changed] };
    return this.options.journal.save(this.record);
  }
}
