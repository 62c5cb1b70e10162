/**
 * What is written down of one launch: enough to go on with it after a crash, and to remove all that it has
 * made. Ids are written down before they are used; what was made in the instant before a crash is found by
 * its job's tag. Pure.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { LaunchKind } from '../runner.ts';
import type { BootMode } from './boot-mode.ts';
import type { UploadRecord } from './upload-record.ts';

export interface VolumeRecord {
  readonly volume: string;
  /** Null: not begun, or a snapshot of the rolling chain is taken as it is. */
  readonly upload: UploadRecord | null;
  /** The finished snapshot. */
  readonly snapshotId: string | null;
  readonly isChecked: boolean;
}

export interface LaunchRecord {
  readonly version: 1;
  readonly job: string;
  /** Not there: a drill. */
  readonly kind?: LaunchKind;
  readonly server: string;
  readonly point: string;
  /** Where it was launched; null: as the environment had it. */
  readonly region: string | null;
  /** The root volume first. */
  readonly volumes: readonly VolumeRecord[];
  readonly bootMode: BootMode | null;
  readonly imageId: string | null;
  readonly instanceType: string | null;
  readonly instanceId: string | null;
  /** Everything it had made is removed: it can be begun anew. */
  readonly isCleaned: boolean;
}

export interface LaunchJournal {
  load(): Promise<LaunchRecord | null>;
  /** Resolves once the record would survive a crash. */
  save(record: LaunchRecord): Promise<void>;
}

export function newLaunch(facts: {
  job: string;
  kind: LaunchKind;
  server: string;
  point: string;
  region: string | null;
  volumes: readonly string[];
}): LaunchRecord {
  const nothing = { bootMode: null, imageId: null, instanceType: null, instanceId: null };
  const none = { upload: null, snapshotId: null, isChecked: false };
  const volumes = facts.volumes.map((volume) => ({ volume, ...none }));
  return { version: 1, ...facts, volumes, ...nothing, isCleaned: false };
}

export function withVolume(
  record: LaunchRecord,
  volume: string,
  change: Partial<VolumeRecord>,
): LaunchRecord {
  const volumes = record.volumes.map((held) =>
    held.volume === volume ? { ...held, ...change } : held,
  );
  return { ...record, volumes };
}

/** The record of this very launch. ERR_EC2_RECORD where it is of another one, or was cleaned up. */
export function fittingLaunch(held: LaunchRecord, wanted: LaunchRecord): LaunchRecord {
  const names = (record: LaunchRecord) => record.volumes.map(({ volume }) => volume).join(' ');
  const isSame = held.point === wanted.point && held.server === wanted.server;
  if (held.isCleaned) {
    const message = `the launch of ${held.server} at ${held.point} was cleaned up: use another record`;
    throw new UnderstudyError('ERR_EC2_RECORD', message);
  }
  if (isSame && names(held) === names(wanted)) return held;
  const message = `the record is of ${held.server} at ${held.point} (${names(held)})`;
  throw new UnderstudyError('ERR_EC2_RECORD', message);
}

/** All snapshots that the launch has begun itself. */
export const ownSnapshots = (record: LaunchRecord): string[] =>
  record.volumes.flatMap(({ upload }) => upload?.snapshotId ?? []);
