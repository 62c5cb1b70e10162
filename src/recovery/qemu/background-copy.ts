/**
 * Copies what the overlays lack of the point while the guest runs, one disk after the other, by QEMU's own
 * stream job. QEMU goes on with it while staging is away; a machine that ended goes on where it was when it
 * is started again. A disk that has everything is flushed, noted to stand alone, and lets its image server
 * go; after the last one the point is not needed any more. An error (no room) pauses the job. Where the point is
 * damaged all else is copied, and the disk never stands alone: it is tried again, for the point may be mended.
 */
import { damageText } from '../damage.ts';
import type { Launch } from '../launcher.ts';
import { nodeNames } from './command.ts';
import { aloneNote, endImageServer, isFailover, standsAlone } from './disks.ts';
import type { Qmp } from './qmp.ts';
import { softly } from './vm.ts';

interface StreamJob extends Extent {
  readonly device: string;
  readonly status: string;
  /** "ok", "failed", "nospace". */
  readonly 'io-status': string;
}

interface Extent {
  readonly offset: number;
  readonly len: number;
}

/** After what is damaged was left out: it may have been mended meanwhile. */
const HURT_PAUSE_MS = 60_000;

export type CopyState =
  | { readonly kind: 'alone' }
  | { readonly kind: 'copying' }
  /** What is left is damaged at the point. */
  | { readonly kind: 'hurt' }
  | { readonly kind: 'paused'; readonly isFull: boolean; resume(qmp: Qmp): Promise<unknown> };

export class BackgroundCopy {
  private readonly launch: Launch;
  /** Disks that may still need the point, in the order in which they are copied. */
  private left: number[];
  private readonly alone: Set<number>;
  /** Disks of which all is copied but what is damaged: when they are tried again. */
  private readonly hurtUntilMs = new Map<number, number>();
  /** Disks whose job goes on past what cannot be read. */
  private readonly skipping = new Set<number>();
  private isTold = false;

  constructor(launch: Launch) {
    this.launch = launch;
    this.left = [...launch.point.volumes.keys()];
    this.alone = new Set(this.left.filter((index) => standsAlone(launch, index)));
  }

  /** Disks that still read from the point. */
  get readers(): readonly number[] {
    return this.left.filter((index) => !this.alone.has(index));
  }

  /** To be called again and again: looks, and does the next step. ERR_LAUNCH_FAILED of QMP. */
  async step(qmp: Qmp): Promise<CopyState> {
    if (this.left.length === 0) return this.end();
    const nowMs = this.launch.clock.monotonicMs();
    const index = this.left.find((each) => (this.hurtUntilMs.get(each) ?? 0) <= nowMs);
    if (index === undefined) return { kind: 'hurt' };
    const id = jobName(index);
    const jobs = await qmp.run<StreamJob[]>('query-block-jobs');
    const job = jobs.find(({ device }) => device === id);
    if (this.alone.has(index)) await this.letGo(qmp, index, job);
    else if (job === undefined) await this.begin(qmp, index, id);
    else if (job.status === 'concluded') await this.conclude(qmp, index, job);
    else {
      this.tell(index, job);
      if (job['io-status'] !== 'ok' && job.status === 'paused') {
        if (job['io-status'] !== 'nospace' && this.damageOf(index).length > 0) {
          await this.skip(qmp, index, id);
          return { kind: 'copying' };
        }
        const resume = () => qmp.run('block-job-resume', { device: id });
        return { kind: 'paused', isFull: job['io-status'] === 'nospace', resume };
      }
    }
    return { kind: 'copying' };
  }

  private async begin(qmp: Qmp, index: number, id: string): Promise<void> {
    const speed = Number(this.launch.options.copyRateBytes ?? 0);
    await qmp.run('block-stream', {
      ...{ 'job-id': id, device: nodeNames(index).disk, speed },
      ...{ 'on-error': this.skipping.has(index) ? 'ignore' : 'stop', 'auto-dismiss': false },
    });
    if (this.hurtUntilMs.has(index) || this.skipping.has(index)) return;
    this.launch.say(`copies ${this.launch.point.volumes[index]!.volume} in the background`);
  }

  private damageOf(index: number) {
    const { volume } = this.launch.point.volumes[index]!;
    return this.launch.damage().filter((place) => place.volume === volume);
  }

  /** Once more, past what is damaged: what was copied by then is not read again. */
  private async skip(qmp: Qmp, index: number, id: string): Promise<void> {
    this.skipping.add(index);
    await qmp.run('block-job-cancel', { device: id, force: true });
  }

  private hurt(index: number): void {
    const { launch } = this;
    const { volume } = launch.point.volumes[index]!;
    this.skipping.delete(index);
    if (!this.hurtUntilMs.has(index)) {
      const why = damageText(launch.point.id, this.damageOf(index));
      launch.say(`WARNING the copy of ${volume} is not complete: ${why}`);
    }
    this.hurtUntilMs.set(index, launch.clock.monotonicMs() + HURT_PAUSE_MS);
  }

  private tell(index: number, { offset, len }: Extent): void {
    const { volumes } = this.launch.point;
    const total = volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const left = this.left.reduce((sum, each) => sum + volumes[each]!.sizeBytes, 0);
    const share = len === 0 ? 0 : offset / len;
    this.launch.progress(total - left + Math.floor(share * volumes[index]!.sizeBytes), total);
  }

  private async conclude(qmp: Qmp, index: number, job: StreamJob): Promise<void> {
    const { launch } = this;
    const failure = (await qmp.run<{ id: string; error?: string }[]>('query-jobs')).find(
      ({ id }) => id === job.device,
    )?.error;
    if (failure !== undefined) {
      await qmp.run('job-dismiss', { id: job.device });
      const isCut = job.offset < job.len;
      if (this.skipping.has(index) && !isCut) this.hurt(index);
      else if (!this.skipping.has(index)) {
        launch.say(`the copy ended: ${failure}; it begins again`);
      }
      return;
    }
    if (isFailover(launch)) await flush(qmp, index);
    if (await softly(launch, launch.remember({ [aloneNote(index)]: true }))) {
      this.alone.add(index);
      await this.letGo(qmp, index, job);
    }
  }

  /** Of what is noted to stand alone: what it had of the point goes. May be done again. */
  private async letGo(qmp: Qmp, index: number, job: StreamJob | undefined): Promise<void> {
    const { launch } = this;
    const { point } = nodeNames(index);
    if (job !== undefined) await qmp.run('job-dismiss', { id: job.device });
    const nodes = await qmp.run<{ 'node-name'?: string }[]>('query-named-block-nodes');
    if (nodes.some((node) => node['node-name'] === point)) {
      await qmp.run('blockdev-del', { 'node-name': point });
    }
    await endImageServer(launch, index);
    this.left = this.left.filter((each) => each !== index);
    this.tell(index, { offset: 0, len: 0 });
  }

  private async end(): Promise<CopyState> {
    const { launch } = this;
    if (!this.isTold) {
      this.isTold = await softly(launch, launch.standsAlone());
      if (this.isTold) launch.say('stands alone: nothing of the recovery point is needed any more');
    }
    return { kind: 'alone' };
  }
}

const jobName = (index: number): string => `copy${index}`;

/**
 * What was copied, and the tables of where it lies, are on the disk of this machine when it resolves: to
 * reopen a node flushes it first, and unlike other commands that do it tells where that failed.
 */
async function flush(qmp: Qmp, index: number): Promise<void> {
  const { disk, file } = nodeNames(index);
  await qmp.run('blockdev-reopen', {
    options: [{ driver: 'qcow2', 'node-name': disk, file, backing: null }],
  });
}
