/** Schemas of failbacks in the OpenAPI document: a part of openapi-schemas.ts, held by the same test. */
import { replicationStates } from '../../model/replication.ts';
import { failbackPhases } from '../lineage-state.ts';
import { count, list, object, orNull, type Schema, text } from './schema.ts';

const report = {
  volume: text('Name of the volume'),
  point: text('Recovery point that was written'),
  chunks: count('Chunks compared by the run'),
  different: count('Chunks that were not as the point, and were written'),
  writtenBytes: count('Bytes written'),
};

export const failbackSchemas: Readonly<Record<string, Schema>> = {
  FailbackRequest: object(
    {
      server: text('Source server'),
      job: text('Drill or failover whose machine is the recovery instance; or:'),
      hardwareId: text('Hardware id of the recovery instance'),
    },
    ['server'],
  ),
  FailbackPreview: object({
    server: text('Source server'),
    original: text('Hardware id of the machine that has the name now'),
    since: orNull(text('Since when, ISO 8601; null: not noted')),
    connected: { type: 'boolean', description: 'Its agent is connected' },
    state: { type: 'string', enum: [...replicationStates] },
    lagMs: orNull(count('Milliseconds since T of the newest whole point')),
    newestPoint: orNull(object({ id: text('Id of the point'), time: text('ISO 8601') })),
    job: orNull(text('Drill or failover whose machine is the recovery instance')),
    jobPhase: orNull(text('What that job does')),
    instance: orNull(text('Hardware id of the recovery instance; null: not seen yet')),
    lastSeen: orNull(text('When its agent asked last, ISO 8601')),
  }),
  FailbackFinish: object(
    {
      acceptNewest: {
        ...{ type: 'boolean', default: false },
        description: "Where the instance's agent is gone: take the newest point as the last",
      },
    },
    [],
  ),
  WrittenHome: object(
    { ...report, words: list(text('What the machine says of itself: it is let in afterwards')) },
    Object.keys(report),
  ),
  Failback: object({
    job: text('Id of the job'),
    server: text('Source server'),
    phase: { type: 'string', enum: [...failbackPhases, 'ready'] },
    message: text('What it waits for, or what is to be done next'),
    original: text('Hardware id of the machine that gets the name back'),
    instance: text('Hardware id of the recovery instance; empty: not seen yet'),
    fromPoint: orNull(text('Last point of the original, held')),
    lastPoint: orNull(text('Last point of the instance, held; null before the fence')),
    newestPoint: orNull(text('Newest point of the server')),
    connected: { type: 'boolean', description: 'An agent is connected' },
    state: { type: 'string', enum: [...replicationStates] },
    lagMs: orNull(count('Milliseconds since T of the newest whole point')),
    syncedBytes: count('Bytes of the volumes that are synced'),
    totalBytes: count('Bytes of the volumes'),
    written: list(object({ ...report, time: text('ISO 8601') })),
  }),
  Failbacks: object({ failbacks: list({ $ref: '#/components/schemas/Failback' }) }),
};
