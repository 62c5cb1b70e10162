/**
 * A job while the service lives: its state, what tells it to end, what it holds. And what staging is to
 * its work: everything that a runner or launcher tells becomes an event of the job.
 */
import type { Clock, Timer } from '../../base/clock.ts';
import type { CheckResult, Launch } from '../../recovery/launcher.ts';
import type { LaunchKind, StopReason, Work } from '../../recovery/runner.ts';
import type { ImageReader, Store } from '../../store/types.ts';
import type { ImageDoor } from './image-door.ts';
import type { Job, JobEvent } from './job-state.ts';

export interface Live {
  job: Job;
  /** Another one when it is started again. */
  stop: AbortController;
  stopReason: StopReason | null;
  readonly leave: AbortController;
  holds: ImageReader[];
  progress: { done: number; total: number } | null;
  /** Why its newest state could not be written down; null: it is. */
  unwritten: string | null;
  /** Writes of this job, one after the other. */
  writing: Promise<void>;
  /** The launch and the cleaning, whichever runs. */
  running: Promise<void>;
  /** Cleanups, one after the other. */
  cleaning: Promise<void>;
  /** How many cleanups were asked for. */
  cleanRound: number;
  /** The next try of one that has failed. */
  cleanTimer: Timer | null;
}

export const liveOf = (job: Job): Live => ({
  job,
  stop: new AbortController(),
  stopReason: null,
  leave: new AbortController(),
  holds: [],
  progress: null,
  unwritten: null,
  writing: Promise.resolve(),
  running: Promise.resolve(),
  cleaning: Promise.resolve(),
  cleanRound: 0,
  cleanTimer: null,
});

/** Keeps the point from retention, until `releasePoint`. */
export async function holdPoint(live: Live, store: Store): Promise<void> {
  const { point } = live.job;
  if (live.holds.length > 0 || point === '') return;
  const { volumes } = await store.point(point);
  for (const { volume } of volumes) live.holds.push(await store.openImage(point, volume));
}

export function releasePoint(live: Live): void {
  for (const reader of live.holds.splice(0)) reader.close();
}

/** Once nothing of it runs or is written any more, nor has come of that. */
export async function untilStill(live: Live): Promise<void> {
  for (;;) {
    const { running, writing } = live;
    await running;
    await writing;
    if (live.running === running && live.writing === writing) return;
  }
}

/** What work needs of the service. */
export interface WorkPorts {
  readonly clock: Clock;
  readonly store: Store;
  readonly door: ImageDoor;
  readonly dataDir: string;
  folder(id: string): string;
  /** Durable when it resolves. */
  tell(live: Live, event: JobEvent): Promise<void>;
  say(live: Live, line: string): void;
  saveCheck(job: Job, check: CheckResult): Promise<void>;
}

export function workOf(live: Live, ports: WorkPorts): Work {
  const { clock, door, dataDir } = ports;
  const { id, kind, server, options, made, notes, starts } = live.job;
  const tell = (event: JobEvent) => ports.tell(live, event);
  return {
    ...{ jobId: id, kind, server, options, made, notes, starts, clock },
    runFolder: `${door.folder}/${id}`,
    folder: ports.folder(id),
    workFolder: `${ports.folder(id)}/work`,
    productFolder: `${dataDir}/${kind === 'failover' ? 'machines' : 'exports'}/${id}`,
    stop: live.stop.signal,
    leave: live.leave.signal,
    making: (thing) => tell({ type: 'making', made: thing }),
    remember: (changed) => tell({ type: 'notes', notes: changed }),
    say: (line) => ports.say(live, line),
    phase: (phase) => tell({ type: 'phase', phase }),
    progress: (done, total) => {
      live.progress = { done, total };
    },
    up: (access) => tell({ type: 'up', access }),
  };
}

export async function launchOf(live: Live, kind: LaunchKind, ports: WorkPorts): Promise<Launch> {
  const { store, door } = ports;
  const work = workOf(live, ports);
  const { point: id, pointFacts, keeps } = live.job;
  // What stands alone outlives its point; what serves must not end for want of it.
  const point = keeps && pointFacts !== null ? pointFacts : await store.point(id);
  return {
    ...work,
    ...{ kind, point },
    openImage: (volume) => store.openImage(id, volume),
    damage: () => live.job.damage,
    imageAddress: (volume) => door.address(id, volume, work.runFolder),
    checked: async (check) => {
      await ports.saveCheck(live.job, check);
      await ports.tell(live, { type: 'checked', check });
    },
    async standsAlone() {
      await ports.tell(live, { type: 'standsAlone' });
      releasePoint(live);
    },
  };
}
