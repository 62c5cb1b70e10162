/**
 * One turn of a server's rolling chain, as staging makes it: connected, brought up to a point, or ended.
 * Loaded when the first turn comes: the SDK is large.
 */
import type { Clock } from '../../base/clock.ts';
import { AwsConnection } from './aws-connection.ts';
import type { LaunchPlan } from './launch-plan.ts';
import {
  type ChainRecord,
  endChain,
  newChain,
  type PrestagedVolume,
  type PrestageOptions,
  prestage,
} from './prestage.ts';
import type { RecordFile } from './record-file.ts';
import { isSameRegion } from './region.ts';

export type PrestagePlan = Pick<LaunchPlan, 'region' | 'encryption' | 'tags'>;

export interface TurnOptions extends Omit<PrestageOptions, 'plan' | 'journal' | 'timeoutMinutes'> {
  readonly clock: Clock;
  readonly plan: PrestagePlan;
  readonly journal: RecordFile<ChainRecord>;
}

/** A turn may be long in coming back to its upload: AWS gives it up after this. */
const TIMEOUT_MINUTES = 24 * 60;

const connect = (clock: Clock, region: string | null): AwsConnection =>
  new AwsConnection({ clock, random: Math.random }, { region: region ?? undefined });

/** Throws what `prestage` throws. */
export async function prestageTurn(options: TurnOptions): Promise<PrestagedVolume[]> {
  const { clock, plan, journal, job, server, onNote } = options;
  const held = await journal.load();
  if (held !== null && !isSameRegion(held.region ?? null, plan.region)) {
    onNote(`the chain moves from ${held.region} to ${plan.region}`);
    if (!(await endTurn(options, held.region ?? null))) {
      onNote(`snapshots that images use stay in ${held.region}, by the tag of ${held.job}`);
    }
    await journal.save(newChain(job, server, plan.region));
  }
  const aws = connect(clock, plan.region);
  try {
    return await prestage(aws, { ...options, timeoutMinutes: TIMEOUT_MINUTES });
  } finally {
    aws.close();
  }
}

/** Deletes the snapshots of the chain. False where images use some. */
export async function endTurn(
  { clock, journal, stop }: Pick<TurnOptions, 'clock' | 'journal' | 'stop'>,
  region: string | null,
): Promise<boolean> {
  const aws = connect(clock, region);
  try {
    return await endChain(aws, { journal, stop });
  } finally {
    aws.close();
  }
}
