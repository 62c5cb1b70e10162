/**
 * Copies what the overlays lack of the point while the guest runs, one disk after the other, by QEMU's own
 * stream job. QEMU goes on with it while staging is away; a machine that ended goes on where it was when it
 * is started again. A disk that has everything is flushed, noted to stand alone, and lets its image server
 * go; after the last one the point is not needed any more. An error (no room) pauses the job.
 */
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

export type CopyState =
  | { readonly kind: 'alone' }
  | { readonly kind: 'copying' }
  | { readonly kind: 'paused'; readonly isFull: boolean; resume(qmp: Qmp): Promise<unknown> };

export class BackgroundCopy {
  private readonly launch: Launch;
  /** Disks that may still need the point, the one that is copied first. */
  private readonly left: number[];
  private readonly alone: Set<number>;
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
    const [index] = this.left;
    if (index === undefined) return this.end();
    const id = jobName(index);
    const jobs = await qmp.run<StreamJob[]>('query-block-jobs');
    const job = jobs.find(({ device }) => device === id);
    if (this.alone.has(index)) await this.letGo(qmp, index, job);
    else if (job === undefined) await this.begin(qmp, index, id);
    else if (job.status === 'concluded') await this.conclude(qmp, index, job);
    else {
      this.tell(index, job);
      if (job['io-status'] !== 'ok' && job.status === 'paused') {
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
      ...{ 'on-error': 'stop', 'auto-dismiss': false },
    });
    this.launch.say(`copies ${this.launch.point.volumes[index]!.volume} in the background`);
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
      launch.say(`the copy ended: ${failure}; it begins again`);
      await qmp.run('job-dismiss', { id: job.device });
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
    this.left.shift();
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
