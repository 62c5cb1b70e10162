/** Schemas of the rolling chains of EBS snapshots, for the OpenAPI document. */
import { count, flag, list, object, orNull, reference, type Schema, text } from './schema.ts';

export const prestageSchemas: Readonly<Record<string, Schema>> = {
  PrestagedServer: object({
    server: text('Source server'),
    isOn: flag('Whether staging keeps snapshots of it ready'),
    state: { type: 'string', enum: ['off', 'waiting', 'uploading', 'current', 'failing'] },
    reason: text('Why it waits; empty otherwise'),
    volumes: list(
      object({
        volume: text('Path as given to the agent'),
        snapshotId: orNull(text('The newest completed snapshot')),
        point: orNull(text('The point that it holds')),
        sizeGiB: orNull(count('Size of the snapshot')),
        encryption: orNull(object({ kmsKeyArn: orNull(text('Key; null: the default one')) })),
      }),
    ),
    progress: orNull(
      object({
        volume: text('Which volume'),
        doneBytes: count('So far'),
        totalBytes: count('Size of the volume'),
      }),
    ),
    endedMs: orNull(count('When it was last brought up to a point, ms since 1970')),
    putBlocks: orNull(count('Blocks of 512 KiB that were put then')),
    nextMs: orNull(count('When its next turn is due, ms since 1970')),
    error: orNull(reference('ErrorBody')),
    failures: count('Turns that failed since the last good one'),
  }),
  Prestage: object({
    everyMs: orNull(count('How often; null: staging was started without')),
    region: orNull(text('Region of AWS; null: as the profile has it')),
    bytesPerSecond: orNull(count('Most that is uploaded')),
    servers: list(reference('PrestagedServer')),
  }),
  PrestageSwitch: {
    type: 'object',
    required: ['isOn'],
    properties: {
      isOn: flag('Whether snapshots are kept ready; stays over restarts'),
      endsChain: flag('Switched off: deletes them'),
    },
  },
};
