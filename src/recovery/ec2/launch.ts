/**
 * From a recovery point to a running instance: the type is looked at first, then the volumes are uploaded as
 * snapshots, an image is registered over them, an instance is run, and its checks are waited for. Each step
 * is written down and can be made again; a run that ended anywhere is gone on with by the next one.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Extent } from '../../model/geometry.ts';
import type { BlockImage } from '../image-overlay.ts';
import { type ImageOverlay, merged, overlaid } from '../image-overlay.ts';
import type { LaunchKind } from '../runner.ts';
import type { AwsConnection } from './aws-connection.ts';
import { sizeGiB } from './block-image.ts';
import type { BootMode } from './boot-mode.ts';
import { type ChainHead, type ChainStep, planStep } from './chain.ts';
import { Ec2Calls } from './ec2-calls.ts';
import { Ec2Catalog } from './ec2-catalog.ts';
import { waitForInstance } from './instance-wait.ts';
import { chooseBootMode, chooseType, type FittedPlan, rootFirst } from './launch-choices.ts';
import {
  fittingLaunch,
  type LaunchJournal,
  type LaunchRecord,
  newLaunch,
  withVolume,
} from './launch-record.ts';
import type { PutQuota } from './put-quota.ts';
import { type LaunchFacts, registerImageRequest, runInstancesRequest } from './requests.ts';
import { checkSnapshot } from './snapshot-check.ts';
import { tagsOf } from './tags.ts';
import { uploadSnapshot } from './upload.ts';
import type { UploadRecord, UploadRequest } from './upload-record.ts';

export interface VolumeSource {
  readonly volume: string;
  readonly image: BlockImage;
  /** The newest snapshot of the volume's rolling chain, where there is one. */
  readonly head?: ChainHead | null;
  /** What differs between the head's point and this one; undefined: not known. */
  readonly changed?: () => AsyncIterable<Extent> | Iterable<Extent>;
  /** Laid over the image: the instance gets the prepared disk, the chain keeps the point's. */
  readonly overlay?: ImageOverlay;
}

export interface LaunchOptions {
  /** Names the launch in its account: in tags, tokens and the image's name. */
  readonly job: string;
  readonly server: string;
  readonly point: string;
  /** Else a drill. */
  readonly kind?: LaunchKind;
  readonly plan: FittedPlan;
  readonly sources: readonly VolumeSource[];
  readonly journal: LaunchJournal;
  readonly quota: PutQuota;
  readonly stop: AbortSignal;
  readonly concurrency?: number;
  /** Part of each snapshot that is read back and compared; 0: nothing. */
  readonly checkShare: number;
  /** After how long without a block AWS gives a snapshot up. */
  readonly timeoutMinutes?: number;
  readonly waitsForChecks: boolean;
  readonly onProgress: (doneBytes: number, totalBytes: number, stage: string) => void;
  readonly onNote: (text: string) => void;
}

export interface LaunchedInstance {
  readonly instanceId: string;
  readonly instanceType: string;
  readonly imageId: string;
  readonly snapshotIds: readonly string[];
  readonly bootMode: BootMode;
  readonly privateAddress: string | null;
  readonly publicAddress: string | null;
}

type UploadStep = Exclude<ChainStep, { kind: 'keep' }>;

const UPLOADS_AT_ONCE = 4;
const TIMEOUT_MINUTES = 24 * 60;

/** Throws ERR_AWS_*, ERR_EC2_*, and what images and journal throw. */
export async function launchInstance(
  aws: AwsConnection,
  options: LaunchOptions,
): Promise<LaunchedInstance> {
  return new InstanceLaunch(aws, options).run();
}

class InstanceLaunch {
  private readonly aws: AwsConnection;
  private readonly options: LaunchOptions;
  private readonly ec2: Ec2Calls;
  private readonly sources: readonly VolumeSource[];
  private record: LaunchRecord;
  /** Records are saved one after the other: uploads run side by side. */
  private saving: Promise<void> = Promise.resolve();
  private readonly doneBytes = new Map<string, number>();

  constructor(aws: AwsConnection, options: LaunchOptions) {
    this.aws = aws;
    this.options = options;
    this.ec2 = new Ec2Calls(aws, options.stop);
    this.sources = rootFirst(options.sources, options.plan.rootVolume).map(prepared);
    const volumes = this.sources.map(({ volume }) => volume);
    this.record = newLaunch({ ...namesOf(options), volumes });
  }

  async run(): Promise<LaunchedInstance> {
    const { plan, journal } = this.options;
    const held = await journal.load();
    if (held !== null) this.record = fittingLaunch(held, this.record);
    const bootMode = await chooseBootMode(plan, this.sources[0]!);
    const isRun = this.record.instanceId !== null;
    const type = isRun ? this.record.instanceType! : await this.chosenType(bootMode);
    await this.save((record) => ({ ...record, bootMode, instanceType: type }));
    await this.uploadAll();
    const imageId = await this.register(bootMode);
    const instanceId = await this.start(bootMode, imageId, type);
    const { stop, waitsForChecks, onNote } = this.options;
    const world = { ec2: this.ec2, clock: this.aws.world.clock, stop };
    const instance = await waitForInstance(world, instanceId, { waitsForChecks, onNote });
    return {
      ...{ instanceId, imageId, bootMode, instanceType: type },
      snapshotIds: this.record.volumes.map(({ snapshotId }) => snapshotId!),
      privateAddress: instance.PrivateIpAddress ?? null,
      publicAddress: instance.PublicIpAddress ?? null,
    };
  }

  private async chosenType(bootMode: BootMode): Promise<string> {
    const { plan, stop, onNote } = this.options;
    const { name, reason } = await chooseType(new Ec2Catalog(this.aws, stop), plan, bootMode);
    for (const line of plan.reasons) onNote(line);
    if (plan.instanceType === null) onNote(`instance type ${name}: ${reason}`);
    return name;
  }

  private save(change: (record: LaunchRecord) => LaunchRecord): Promise<void> {
    this.saving = this.saving.then(async () => {
      this.record = change(this.record);
      await this.options.journal.save(this.record);
    });
    return this.saving;
  }

  private async uploadAll(): Promise<void> {
    const failed = new AbortController();
    const stop = AbortSignal.any([this.options.stop, failed.signal]);
    const queue = [...this.sources];
    const worker = async () => {
      try {
        for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
          stop.throwIfAborted();
          await this.snapshot(next, stop);
        }
      } catch (error) {
        failed.abort(error);
      }
    };
    await Promise.all(Array.from({ length: UPLOADS_AT_ONCE }, worker));
    stop.throwIfAborted();
  }

  /** The snapshot of one volume: made, taken up again, or the head of its chain as it is. */
  private async snapshot(source: VolumeSource, stop: AbortSignal): Promise<void> {
    const { volume } = source;
    await this.giveUpOther(source);
    const held = this.volumeRecord(volume);
    if (held.snapshotId === null) {
      const step = await this.step(source);
      const isKept = step.kind === 'keep';
      const snapshotId = isKept ? step.snapshotId : await this.uploadBy(source, step, stop);
      await this.save((record) => withVolume(record, volume, { snapshotId }));
    }
    this.progress(source, source.image.sizeBytes, 'uploaded');
    const { checkShare: share } = this.options;
    if (share === 0 || this.volumeRecord(volume).isChecked) return;
    const { snapshotId } = this.volumeRecord(volume);
    await checkSnapshot(this.aws, { image: source.image, snapshotId: snapshotId!, share, stop });
    await this.save((record) => withVolume(record, volume, { isChecked: true }));
  }

  /**
   * What was uploaded of another preparation of the disk, or over another snapshot than what differs is told
   * from, is of no use: it is deleted, then forgotten.
   */
  private async giveUpOther(source: VolumeSource): Promise<void> {
    const { upload, snapshotId } = this.volumeRecord(source.volume);
    if (this.record.imageId !== null) return;
    const isRight = upload === null ? !isPrepared(source) : this.fits(source, upload);
    if (isRight || (upload === null && snapshotId === null)) return;
    if (upload?.snapshotId) await this.ec2.deleteSnapshot(upload.snapshotId);
    const nothing = { upload: null, snapshotId: null, isChecked: false };
    await this.save((record) => withVolume(record, source.volume, nothing));
  }

  private fits(source: VolumeSource, { request }: UploadRecord): boolean {
    const { parentSnapshotId: parent, key } = request;
    const { head = null, changed } = source;
    if (key !== this.keyOf(source, parent)) return false;
    return parent === null || (changed !== undefined && head?.snapshotId === parent);
  }

  private keyOf({ volume, overlay }: VolumeSource, parent: string | null): string {
    const prepared = overlay === undefined ? '' : ` ${overlay.id}`;
    return `${this.options.job} ${volume}${prepared} over ${parent ?? 'nothing'}`;
  }

  /** What an upload was begun as stays; else the chain decides. */
  private async step(source: VolumeSource): Promise<ChainStep> {
    const { volume, image, head = null, changed } = source;
    const begun = this.volumeRecord(volume).upload;
    if (begun !== null) {
      const parent = begun.request.parentSnapshotId;
      if (parent === null) return { kind: 'full', reason: 'first' };
      return { kind: 'delta', parentSnapshotId: parent, fromPoint: head?.point ?? '' };
    }
    const there = head === null ? null : await this.ec2.snapshot(head.snapshotId);
    const step = planStep(head, {
      point: this.options.point,
      sizeGiB: sizeGiB(image.sizeBytes),
      encryption: this.options.plan.encryption,
      isHeadThere: there?.State === 'completed',
      isDeltaKnown: changed !== undefined,
      isPrepared: isPrepared(source),
    });
    if (head !== null && step.kind === 'full') {
      this.options.onNote(
        `${volume}: ${head.snapshotId} is no parent (${step.reason}): whole upload`,
      );
    }
    return step;
  }

  /** By the step; whole, where the parent vanishes meanwhile: nobody waits longer than has to be. */
  private async uploadBy(source: VolumeSource, step: UploadStep, stop: AbortSignal) {
    try {
      return await this.upload(source, step, stop);
    } catch (error) {
      const isGone = error instanceof UnderstudyError && error.code === 'ERR_EC2_SNAPSHOT_GONE';
      if (step.kind === 'full' || !isGone) throw error;
      this.options.onNote(`${source.volume}: ${error.message}: whole upload`);
      await this.save((record) => withVolume(record, source.volume, { upload: null }));
      return this.upload(source, { kind: 'full', reason: 'snapshot-gone' }, stop);
    }
  }

  private async upload(source: VolumeSource, step: UploadStep, stop: AbortSignal): Promise<string> {
    const { volume, image, changed } = source;
    const isDelta = step.kind === 'delta';
    const { concurrency, quota, onNote } = this.options;
    const done = await uploadSnapshot(this.aws, {
      image,
      request: this.requestFor(source, isDelta ? step.parentSnapshotId : null),
      changed: isDelta ? changed! : null,
      journal: {
        load: async () => this.volumeRecord(volume).upload,
        save: (upload) => this.save((record) => withVolume(record, volume, { upload })),
      },
      lane: quota.lane(),
      stop,
      ...(concurrency !== undefined && { concurrency }),
      onProgress: (bytes) => this.progress(source, bytes, 'uploading'),
      onNote,
    });
    return done.snapshotId;
  }

  private requestFor(source: VolumeSource, parent: string | null): UploadRequest {
    const { volume, image } = source;
    const { job, kind = 'drill', server, point, plan } = this.options;
    const { timeoutMinutes = TIMEOUT_MINUTES } = this.options;
    return {
      key: this.keyOf(source, parent),
      sizeGiB: sizeGiB(image.sizeBytes),
      description: `understudy: ${server} ${volume} at ${point}`,
      tags: tagsOf(job, { kind, server, point, volume }, plan.tags),
      parentSnapshotId: parent,
      encryption: plan.encryption,
      timeoutMinutes,
    };
  }

  private async register(bootMode: BootMode): Promise<string> {
    if (this.record.imageId !== null) return this.record.imageId;
    const request = registerImageRequest(this.facts(bootMode));
    const imageId = await this.ec2.registerImage(request, this.options.job);
    this.options.onNote(`image ${imageId} is registered (${bootMode})`);
    await this.save((record) => ({ ...record, imageId }));
    return imageId;
  }

  private async start(bootMode: BootMode, imageId: string, type: string): Promise<string> {
    if (this.record.instanceId !== null) return this.record.instanceId;
    const request = runInstancesRequest(this.facts(bootMode), imageId, type);
    const instanceId = await this.ec2.runInstance(request);
    await this.save((record) => ({ ...record, instanceId }));
    this.options.onNote(`instance ${instanceId} (${type}) is starting`);
    return instanceId;
  }

  private facts(bootMode: BootMode): LaunchFacts {
    const { job, kind = 'drill', server, point, plan } = this.options;
    const volumes = this.record.volumes.map((held) => ({
      volume: held.volume,
      snapshotId: held.snapshotId!,
    }));
    const name = { Name: `${server} (understudy)` };
    const tags = tagsOf(job, { kind, server, point }, { ...name, ...plan.tags });
    return { job, kind, plan, server, point, volumes, bootMode, tags };
  }

  private volumeRecord(volume: string) {
    return this.record.volumes.find((held) => held.volume === volume)!;
  }

  private progress(source: VolumeSource, doneBytes: number, stage: string): void {
    this.doneBytes.set(source.volume, doneBytes);
    const done = [...this.doneBytes.values()].reduce((sum, bytes) => sum + bytes, 0);
    const total = this.sources.reduce((sum, { image }) => sum + image.sizeBytes, 0);
    this.options.onProgress(done, total, stage);
  }
}

const isPrepared = ({ overlay }: VolumeSource): boolean =>
  overlay !== undefined && overlay.changed.length > 0;

/** The source as it is uploaded. */
function prepared(source: VolumeSource): VolumeSource {
  const { image, head = null, changed, overlay } = source;
  if (overlay === undefined || !isPrepared(source)) return source;
  const over = overlay.changed;
  return {
    ...source,
    image: overlaid(image, overlay),
    ...(head !== null && changed !== undefined && { changed: () => merged(changed(), over) }),
  };
}

const namesOf = ({ job, kind = 'drill', server, point, plan }: LaunchOptions) => ({
  ...{ job, kind, server, point, region: plan.region },
});
