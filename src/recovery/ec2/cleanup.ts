/**
 * Takes away what a launch has made: the instance, the image, the snapshots, in this order, for each holds
 * the next. What is written down and what bears the job's tag; snapshots of a rolling chain bear another one
 * and stay. What is gone already is no error, so a cleanup can be run again.
 */
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { AwsConnection } from './aws-connection.ts';
import { Ec2Calls } from './ec2-calls.ts';
import { waitUntilTerminated } from './instance-wait.ts';
import { type LaunchRecord, ownSnapshots } from './launch-record.ts';
import { pause } from './retry.ts';

export interface CleanupOptions {
  readonly record: LaunchRecord;
  /** After a failover: the instance stays, what it was made of goes. */
  readonly keepsInstance: boolean;
  /** Volumes that outlive the instance go, too: those of a failover that is discarded. */
  readonly removesVolumes?: boolean;
  /** Until the instance is gone; nothing else needs it but volumes. */
  readonly waitsForEnd: boolean;
  readonly stop: AbortSignal;
  readonly onNote: (text: string) => void;
}

export interface CleanupReport {
  readonly instances: readonly string[];
  readonly volumes: readonly string[];
  readonly images: readonly string[];
  readonly snapshots: readonly string[];
}

/** A snapshot stays in use for a while after its image is deregistered, a volume after its instance. */
const IN_USE_TRIES = 20;
const IN_USE_MS = 5000;

export async function cleanUp(aws: AwsConnection, options: CleanupOptions): Promise<CleanupReport> {
  const { record, keepsInstance, stop, onNote, removesVolumes = false } = options;
  const waitsForEnd = options.waitsForEnd || removesVolumes;
  const ec2 = new Ec2Calls(aws, stop);
  const { clock } = aws.world;
  const { job } = record;
  const instances = keepsInstance ? [] : both(record.instanceId, await ec2.instancesOf(job));
  for (const id of instances) {
    await ec2.terminate(id);
    if (waitsForEnd) await waitUntilTerminated({ ec2, clock, stop }, id);
    onNote(`${id} is ${waitsForEnd ? 'terminated' : 'being terminated'}`);
  }
  const world = { ec2, clock, stop, onNote };
  const volumes = removesVolumes ? await ec2.volumesOf(job) : [];
  for (const id of volumes)
    await unlessInUse(world, id, 'DeleteVolume', () => ec2.deleteVolume(id));
  const images = both(record.imageId, await ec2.imagesOf(job));
  for (const id of images) {
    await ec2.deregisterImage(id);
    onNote(`${id} is deregistered`);
  }
  const snapshots = [...new Set([...ownSnapshots(record), ...(await ec2.snapshotsOf(job))])];
  for (const id of snapshots) {
    await unlessInUse(world, id, 'DeleteSnapshot', () => ec2.deleteSnapshot(id));
  }
  return { instances, volumes, images, snapshots };
}

interface Waiting {
  readonly clock: Clock;
  readonly stop: AbortSignal;
  readonly onNote: (text: string) => void;
}

/** What used it a moment ago may still be said to. */
async function unlessInUse(
  { clock, stop, onNote }: Waiting,
  id: string,
  call: string,
  remove: () => Promise<'deleted' | 'in-use'>,
): Promise<void> {
  for (let tries = 1; (await remove()) === 'in-use'; tries += 1) {
    if (tries >= IN_USE_TRIES) {
      throw new UnderstudyError('ERR_AWS_REFUSED', `${call} ${id}: it is still in use`);
    }
    await pause(clock, IN_USE_MS, stop);
  }
  onNote(`${id} is deleted`);
}

const both = (id: string | null, others: readonly string[]): string[] => [
  ...new Set(id === null ? others : [id, ...others]),
];
