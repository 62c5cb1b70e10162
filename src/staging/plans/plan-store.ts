/**
 * Plans on disk: DATA/plans/NAME.json, a record (jobs/record-file.ts, magic "understudy-plan 1") of the
 * file as it was applied and when. A plan that is applied again is replaced whole; runs that are under way
 * keep the one that they began with.
 */
import type { Clock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { readRecord, writeRecord } from '../jobs/record-file.ts';
import { PLAN_NAME, parsePlan } from './plan-file.ts';

const MAGIC = 'understudy-plan 1';
const SUFFIX = '.json';

export interface ShownPlan {
  readonly name: string;
  readonly description: string;
  /** ISO 8601. */
  readonly appliedAt: string;
  /** Names of the groups, in order. */
  readonly groups: readonly string[];
  readonly servers: readonly string[];
  /** As it was applied. */
  readonly file: Readonly<Record<string, unknown>>;
}

interface Kept {
  readonly file: Readonly<Record<string, unknown>>;
  readonly appliedAt: string;
}

function shown({ file, appliedAt }: Kept): ShownPlan {
  const { name, description, groups } = parsePlan(file);
  const servers = groups.flatMap(({ members }) => members.map(({ server }) => server));
  return { name, description, appliedAt, groups: groups.map((group) => group.name), servers, file };
}

export class PlanStore {
  private readonly disk: Disk;
  private readonly folder: string;
  private readonly clock: Clock;

  constructor(disk: Disk, dataDir: string, clock: Clock) {
    this.disk = disk;
    this.folder = `${dataDir}/plans`;
    this.clock = clock;
  }

  /** Durable when it resolves. ERR_PLAN_FILE. */
  async apply(file: Readonly<Record<string, unknown>>): Promise<ShownPlan> {
    const kept: Kept = { file, appliedAt: new Date(this.clock.wallMs()).toISOString() };
    const plan = shown(kept);
    await this.disk.makeDirectory(this.folder);
    await writeRecord(this.disk, this.path(plan.name), MAGIC, kept);
    return plan;
  }

  /** By name. ERR_PLAN_DAMAGED where one of them is. */
  async list(): Promise<ShownPlan[]> {
    const plans: ShownPlan[] = [];
    for (const { name, isDirectory } of await this.disk.list(this.folder)) {
      if (isDirectory || !name.endsWith(SUFFIX)) continue;
      plans.push(await this.find(name.slice(0, -SUFFIX.length)));
    }
    return plans;
  }

  /** ERR_PLAN_NOT_FOUND, ERR_PLAN_DAMAGED. */
  async find(name: string): Promise<ShownPlan> {
    await this.refuseUnknown(name);
    try {
      return shown(await readRecord<Kept>(this.disk, this.path(name), MAGIC));
    } catch (cause) {
      const isKnown = cause instanceof UnderstudyError;
      if (!isKnown || !['ERR_JOB_DAMAGED', 'ERR_PLAN_FILE'].includes(cause.code)) throw cause;
      const message = `the plan "${name}" is damaged, or of another version: ${cause.message}`;
      throw new UnderstudyError('ERR_PLAN_DAMAGED', message, {}, cause);
    }
  }

  /** Also one that is damaged. ERR_PLAN_NOT_FOUND. */
  async remove(name: string): Promise<void> {
    await this.refuseUnknown(name);
    await this.disk.remove(this.path(name));
    await this.disk.syncDirectory(this.folder);
  }

  private async refuseUnknown(name: string): Promise<void> {
    if (PLAN_NAME.test(name) && (await this.disk.exists(this.path(name)))) return;
    throw new UnderstudyError('ERR_PLAN_NOT_FOUND', `no plan "${name}"`);
  }

  private path(name: string): string {
    return `${this.folder}/${name}${SUFFIX}`;
  }
}
