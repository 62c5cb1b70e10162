/**
 * Follows one run of a plan: makes each state durable in the job's notes, then carries its effects out
 * (plan-state.ts decides them), and tells the outcomes back, one after the other. The points of members
 * whose turn has not come are held meanwhile.
 */
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { LaunchEnd, Work } from '../../recovery/runner.ts';
import type { ImageReader } from '../../store/types.ts';
import type { JobError } from '../jobs/job-state.ts';
import type { ShownJob } from '../jobs/jobs.ts';
import { choosePoint } from './choose-point.ts';
import { launchRequest, problemOf } from './plan-check.ts';
import type { PlanMember, PlanScript } from './plan-file.ts';
import {
  endJob,
  findJob,
  MADE_JOB,
  MADE_SCRIPT,
  type PlanJobOptions,
  type PlanPorts,
  planOptionsOf,
  unlessEnded,
} from './plan-ports.ts';
import {
  type ChosenPoint,
  canRetry,
  newRun,
  type PlanEffect,
  type PlanEvent,
  type PlanRun,
  type PlanStep,
  planTransition,
  statusOf,
} from './plan-state.ts';
import { haltedPhase, memberVerdict, phaseOf, progressOf, runOf } from './plan-steps.ts';
import { scriptEnvironment, scriptInput } from './script-world.ts';

const LOOK_MS = 200;

export class PlanFollower {
  private readonly ports: PlanPorts;
  private readonly work: Work;
  private readonly options: PlanJobOptions;
  private readonly abort: AbortSignal;
  private readonly holds = new Map<string, ImageReader[]>();
  private readonly tasks = new Set<Promise<void>>();
  private readonly broken = Promise.withResolvers<never>();
  private run: PlanRun;
  /** Events, one after the other. */
  private lane: Promise<void> = Promise.resolve();
  private hasFailed = false;

  constructor(ports: PlanPorts, work: Work) {
    this.ports = ports;
    this.work = work;
    this.options = planOptionsOf(work.options);
    this.abort = AbortSignal.any([work.stop, work.leave]);
    const { plan, points } = this.options;
    this.run = runOf(work.notes) ?? newRun(work.jobId, plan, (server) => points[server]!);
    this.broken.promise.catch(() => undefined); // told by `untilEnd`
  }

  /** As a runner's `run`. Throws where a state cannot be written down. */
  async untilEnd(): Promise<LaunchEnd> {
    const { work } = this;
    try {
      await this.holdAll();
      await Promise.race([this.tell({ type: 'begin' }), this.broken.promise]);
      while (!work.stop.aborted) {
        if (work.leave.aborted) return 'left';
        if (statusOf(this.run) === 'finished' && !this.isAnyUp()) return 'done';
        await Promise.race([sleep(work.clock, LOOK_MS), this.broken.promise]);
      }
      return 'done';
    } finally {
      this.hasFailed = true; // what comes late is not told any more
      // A launch that is just being started must be there, or never come, before anything is cleaned up.
      await Promise.all(this.tasks);
      for (const point of [...this.holds.keys()]) this.release(point);
    }
  }

  /** As PlanRunner.retry. */
  async retry(number: number, wanted: string | null): Promise<void> {
    const step = this.failedStep(number);
    const former = this.jobOf(step.job);
    if (this.options.kind === 'failover' && former?.outcome === null) {
      const message = `job ${former.id} of step ${number} (${step.name}) runs on: failover stop it first`;
      throw new UnderstudyError('ERR_PLAN_STEP', message);
    }
    if (former?.outcome === 'failed' && former.keeps && !former.isDiscarded) {
      const message =
        `job ${former.id} of step ${number} (${step.name}) keeps what was written since it came up: ` +
        `failover start --again ${former.id}, then plan accept; or failover discard it first`;
      throw new UnderstudyError('ERR_PLAN_STEP', message);
    }
    const chosen = step.kind === 'member' ? await this.chooseAgain(step, wanted) : null;
    if (chosen?.point != null) await this.hold(chosen.point);
    await this.tell({ type: 'retry', step: number, chosen });
  }

  /** As PlanRunner.accept. */
  async accept(number: number): Promise<void> {
    this.failedStep(number);
    await this.tell({ type: 'accept', step: number });
  }

  /** ERR_PLAN_STEP. */
  private failedStep(number: number): PlanStep {
    const step = this.run.steps.find((each) => each.number === number);
    if (step === undefined) {
      const message = `the plan has no step ${number}; it has ${this.run.steps.length}`;
      throw new UnderstudyError('ERR_PLAN_STEP', message);
    }
    if (canRetry(this.run, number)) return step;
    const message = `step ${number} (${step.name}) is ${step.state}, and has not failed`;
    throw new UnderstudyError('ERR_PLAN_STEP', message);
  }

  /** Null: the point that it had. */
  private async chooseAgain(step: PlanStep, wanted: string | null): Promise<ChosenPoint | null> {
    if (wanted === null && step.problem === null && step.point !== null) return null;
    const { store, verdicts, clock } = this.ports;
    const { server, at, maxAgeMs, point } = this.memberOf(step);
    const byPlan = { server, at, maxAgeMs, point, atMs: this.options.atMs };
    const isId = wanted !== null && wanted !== 'latest';
    const byWord = { server, at: 'latest', maxAgeMs: null, point: isId ? wanted : null } as const;
    const wish = wanted === null ? byPlan : { ...byWord, atMs: null };
    const found = await choosePoint({ store, verdicts }, { ...wish, nowMs: clock.wallMs() });
    return { point: found.id, pointTime: found.time, problem: null };
  }

  private memberOf({ group, name }: PlanStep): PlanMember {
    const found = this.options.plan.groups.find((each) => each.name === group);
    return found!.members.find(({ server }) => server === name)!;
  }

  private tell(event: PlanEvent): Promise<void> {
    const told = this.lane.then(() => this.apply(event));
    this.lane = told.catch(() => undefined);
    told.catch((error: unknown) => this.broken.reject(error));
    return told;
  }

  /** Durable, then carried out. */
  private async apply(event: PlanEvent): Promise<void> {
    if (this.hasFailed) return;
    const { work } = this;
    const { run, effects } = planTransition(this.run, event, work.clock.wallMs());
    await this.patiently(() => work.remember({ planRun: JSON.stringify(run) }));
    this.run = run;
    work.progress(...progressOf(run));
    await this.patiently(() => this.show(run));
    if (this.hasFailed) return;
    for (const effect of effects) this.perform(effect);
  }

  private show(run: PlanRun): Promise<void> {
    const status = statusOf(run);
    if (status === 'finished') return this.finished();
    return this.work.phase(status === 'halted' ? haltedPhase(run) : phaseOf(run));
  }

  /** A full disk is waited for: nothing is begun that could not be written down, and nothing given up. */
  private async patiently(write: () => Promise<void>): Promise<void> {
    for (let isFirst = true; ; isFirst = false) {
      try {
        return await write();
      } catch (error) {
        const isPassing = error instanceof UnderstudyError && error.code === 'ERR_DISK_FULL';
        if (!isPassing || this.abort.aborted) throw error;
        if (isFirst) await this.tellWait(`the plan waits: ${error.message}`);
        await sleep(this.work.clock, LOOK_MS);
      }
    }
  }

  /** The phase is known from memory, though it cannot be written down either. */
  private async tellWait(line: string): Promise<void> {
    this.work.say(line);
    await this.work.phase(line).catch((error: unknown) => {
      if (problemOf(error).code !== 'ERR_DISK_FULL') throw error;
    });
  }

  private async finished(): Promise<void> {
    const { work } = this;
    const jobs = this.run.steps.filter(({ job }) => job !== null);
    await work.up(Object.fromEntries(jobs.map(({ name, job }) => [name, `job ${job}`])));
    const failed = this.run.steps.filter(({ state }) => state === 'failed').length;
    if (failed > 0) work.say(`all steps have ended; ${failed} optional ones failed`);
    await work.phase('up');
  }

  private perform(effect: PlanEffect): void {
    if (effect.type === 'say') {
      this.work.say(effect.line);
      return;
    }
    const task = this.outcomeOf(effect).then((outcome) => this.settle(effect.step, outcome));
    // The lane has told whoever waits for the end of the run.
    const kept = task.catch((error: unknown) => this.broken.reject(error));
    this.tasks.add(kept);
    void kept.finally(() => this.tasks.delete(kept));
  }

  private async settle(step: PlanStep, outcome: JobError | 'done' | null): Promise<void> {
    if (outcome === null || this.abort.aborted) return;
    if (step.point !== null && outcome === 'done') this.release(step.point);
    const { number, attempt } = step;
    if (outcome === 'done') await this.tell({ type: 'ended', step: number, attempt });
    else await this.tell({ type: 'failed', step: number, attempt, error: outcome });
  }

  /** Null: it was not waited for. */
  private async outcomeOf(
    effect: Exclude<PlanEffect, { type: 'say' }>,
  ): Promise<JobError | 'done' | null> {
    try {
      if (effect.type === 'wait') return await this.wait(effect.untilMs, effect.step.waitMs);
      if (effect.type === 'script') return await this.script(effect.step);
      return await this.member(effect.step, effect.job);
    } catch (error) {
      if (this.abort.aborted) return null;
      return problemOf(error);
    }
  }

  /** A clock that is set back makes it no longer than it was. */
  private async wait(untilMs: number, waitMs: number): Promise<'done' | null> {
    const { clock } = this.work;
    const endMs = clock.monotonicMs() + Math.min(waitMs, untilMs - clock.wallMs());
    while (clock.monotonicMs() < endMs) {
      if (this.abort.aborted) return null;
      await sleep(clock, Math.min(LOOK_MS, endMs - clock.monotonicMs()));
    }
    return 'done';
  }

  private async script(step: PlanStep): Promise<'done' | null> {
    const { kind, plan } = this.options;
    const group = plan.groups.find(({ name }) => name === step.group)!;
    const world = { plan: plan.name, kind, job: this.work.jobId, group, run: this.run };
    const folderOf = (attempt: number) => `${this.work.folder}/scripts/${step.number}.${attempt}`;
    const folder = folderOf(step.attempt);
    // It may run on where the step failed for another reason than its end.
    await this.ports.scripts.end(folderOf(step.attempt - 1));
    if (this.abort.aborted) return null;
    // Before it is begun: whoever cleans up ends it.
    await this.work.making({ kind: MADE_SCRIPT, name: folder });
    const end = await this.ports.scripts.run({
      ...{ script: this.scriptOf(step), folder },
      environment: scriptEnvironment(world),
      input: scriptInput(world, (id) => this.jobOf(id)),
      ...{ stop: this.work.stop, leave: this.work.leave },
      say: (line) => this.work.say(line),
    });
    return end === 'left' ? null : 'done';
  }

  /** The scripts of a group, and the steps made of them, are in the same order. */
  private scriptOf(step: PlanStep): PlanScript {
    const { pre, post } = this.options.plan.groups.find(({ name }) => name === step.group)!;
    const steps = this.run.steps.filter(
      ({ group, kind }) => group === step.group && kind === 'script',
    );
    return [...pre, ...post][steps.findIndex(({ number }) => number === step.number)]!;
  }

  private async member(step: PlanStep, id: string): Promise<JobError | 'done' | null> {
    const { clock, making } = this.work;
    // Its time begins anew with staging: neither a leap of the clock nor staging's absence uses it up.
    const startMs = clock.monotonicMs();
    const { kind } = this.options;
    const member = this.memberOf(step);
    if (kind === 'drill') await making({ kind: MADE_JOB, name: id });
    if (this.abort.aborted) return null;
    if (this.jobOf(id) === null) {
      // What a drill's former try has left up would stand beside it, on its ports.
      if (kind === 'drill') await this.endFormer(step);
      if (this.abort.aborted) return null;
      const request = launchRequest(member, kind, step.point!);
      await this.ports.jobs.start({ ...request, id });
    }
    for (;;) {
      const verdict = memberVerdict(this.ports.jobs.find(id), member.waitFor);
      if (verdict !== null) return verdict;
      if (this.abort.aborted) return null;
      if (clock.monotonicMs() - startMs > member.timeoutMs) return this.giveUp(id, member);
      await sleep(clock, LOOK_MS);
    }
  }

  private async endFormer({ number, attempt }: PlanStep): Promise<void> {
    const former = `${this.work.jobId}.${number}.${attempt - 1}`;
    await endJob(this.ports, former).catch((error: unknown) => {
      this.work.say(`${former}: ${problemOf(error).message}`);
    });
  }

  private async giveUp(id: string, member: PlanMember): Promise<JobError> {
    const left = await this.cancelled(id);
    const what = member.waitFor === 'check' ? 'through its check' : 'up';
    const time = formatDuration(member.timeoutMs);
    const message = `${member.server} was not ${what} within ${time}${left}`;
    return problemOf(new UnderstudyError('ERR_PLAN_TIMEOUT', message));
  }

  /** A failover that has come up may hold what nobody else has: it is left to the operator. */
  private async cancelled(id: string): Promise<string> {
    try {
      await this.ports.jobs.cancel(id);
    } catch (error) {
      if (error instanceof UnderstudyError && error.code === 'ERR_JOB_KEEPS') {
        return `; job ${id} runs on`;
      }
      unlessEnded(error);
    }
    return '';
  }

  private jobOf(id: string | null): ShownJob | null {
    return findJob(this.ports.jobs, id);
  }

  private isAnyUp(): boolean {
    if (this.options.kind === 'failover') return false;
    const jobs = this.run.steps.map(({ job }) => this.jobOf(job));
    return jobs.some((job) => job?.outcome === null);
  }

  private async holdAll(): Promise<void> {
    for (const { kind, point, state } of this.run.steps) {
      if (kind === 'member' && point !== null && state !== 'done') await this.hold(point);
    }
  }

  /** A point that is gone is told by the launch that needs it. */
  private async hold(point: string): Promise<void> {
    if (this.holds.has(point)) return;
    const readers: ImageReader[] = [];
    this.holds.set(point, readers);
    const { store } = this.ports;
    try {
      for (const { volume } of (await store.point(point)).volumes) {
        readers.push(await store.openImage(point, volume));
      }
    } catch (error) {
      this.release(point);
      this.work.say(`point ${point} cannot be held: ${problemOf(error).message}`);
    }
  }

  private release(point: string): void {
    for (const reader of this.holds.get(point) ?? []) reader.close();
    this.holds.delete(point);
  }
}
