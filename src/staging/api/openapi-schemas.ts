/**
 * Schemas of the REST API's JSON, for the OpenAPI document. A test holds live answers to them: every field
 * that is answered is documented, every documented one is answered.
 */
import { bootModes, severities } from '../../model/machine.ts';
import { replicationStates } from '../../model/replication.ts';
import { failbackSchemas } from './failback-schemas.ts';
import { jobSchemas } from './job-schemas.ts';
import { planSchemas } from './plan-schemas.ts';
import { prestageSchemas } from './prestage-schemas.ts';

type Schema = Readonly<Record<string, unknown>>;

const text = (description: string): Schema => ({ type: 'string', description });
const count = (description: string): Schema => ({ type: 'integer', minimum: 0, description });
const flag = (description: string): Schema => ({ type: 'boolean', description });
const list = (items: Schema, description = ''): Schema => ({ type: 'array', items, description });
const reference = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });
const orNull = (schema: Schema): Schema => ({ oneOf: [schema, { type: 'null' }] });
const object = (properties: Record<string, Schema>): Schema => ({
  type: 'object',
  required: Object.keys(properties),
  properties,
});
const durability: Schema = {
  type: 'string',
  enum: ['local', 'object'],
  description: 'When a point is acknowledged: durable in staging, or sealed in the repository',
};
const distinct = {
  contents: count('Distinct contents'),
  rawBytes: count('Their bytes, uncompressed'),
  storedBytes: count('Their bytes, as stored'),
};
const usageSchemas: Readonly<Record<string, Schema>> = {
  ServerUsage: object({
    server: text('Source server'),
    points: count('Recovery points'),
    logicalBytes: count('Sum of the sizes of its images'),
    ...distinct,
    sharedStoredBytes: count('Of storedBytes: contents that other servers have as well'),
  }),
  PointUsage: object({
    point: text('Id'),
    server: text('Source server'),
    time: text('T, ISO 8601'),
    logicalBytes: count('Sum of the sizes of its images'),
    changedContents: count('Contents that changed since the point before'),
    changedBytes: count('Their bytes, uncompressed'),
    newContents: count('Of them, those that no older point has'),
    newBytes: count('Their bytes, uncompressed'),
    newStoredBytes: count('Their bytes, as stored'),
    mapBytes: count('Length of the maps since the point before'),
  }),
  Usage: object({
    logicalBytes: count('Sum of the sizes of all images'),
    ...distinct,
    servers: list(reference('ServerUsage'), 'With by=server'),
    points: list(reference('PointUsage'), 'With by=point; oldest first'),
    isEstimate: flag('Always true: about 1 in 100 is not counted'),
  }),
};
/** Properties that an answer may leave out. */
const withOptional = (optional: Record<string, Schema>, schema: Schema): Schema => ({
  ...schema,
  properties: { ...(schema.properties as Record<string, Schema>), ...optional },
});
const state: Schema = { type: 'string', enum: [...replicationStates] };

const machine: Record<string, Schema> = {
  time: text('When the agent looked, ISO 8601'),
  architecture: text('As uname -m says'),
  kernel: text('Release of the running kernel'),
  system: text('Name of the operating system'),
  bootMode: { type: 'string', enum: [...bootModes] },
  cpuCount: count('Processors'),
  memoryBytes: count('Memory'),
  bootVolume: text('Volume with the root file system; empty: not known'),
  counts: object(Object.fromEntries(severities.map((each) => [each, count('Findings')]))),
};

export const schemas: Readonly<Record<string, Schema>> = {
  ...jobSchemas,
  ...planSchemas,
  ...prestageSchemas,
  ...failbackSchemas,
  ErrorBody: object({
    code: text('Stable code of the error'),
    message: text('What went wrong'),
    hint: text('What to do next'),
  }),
  Error: object({ error: reference('ErrorBody') }),
  Cut: object({
    method: { type: 'string', enum: ['validated', 'scan', 'frozen', 'logged'] },
    passes: count('Flips until no block was contested'),
    durationMs: { type: 'number', description: 'From the first flip to the end of validation' },
  }),
  PointVolume: object({
    volume: text('Path as given to the agent'),
    sizeBytes: count('Size of the image'),
    sectorBytes: count('Logical sector size of the source'),
    generation: text('Identity of the unbroken history'),
    epoch: count('Epoch within the generation'),
    chainRoot: text('Digest over the chain of maps'),
  }),
  Point: withOptional(
    {
      isDamaged: flag('Set where the last check found that it cannot be restored wholly'),
      isVerified: orNull(flag('Its boot check passed; null: there was none')),
    },
    object({
      id: text('Sorts by time'),
      server: text('Source server'),
      time: text('T, the instant of the cut, ISO 8601'),
      cut: reference('Cut'),
      volumes: list(reference('PointVolume')),
      missingVolumes: list(text('Path'), 'Volumes left out: not empty means a partial point'),
      state: { type: 'string', enum: ['staged', 'sealed'] },
      hold: orNull(reference('Hold')),
      copies: list(reference('HeldCopy'), 'Other places that hold it'),
    }),
  ),
  HeldCopy: object({
    place: text('Where'),
    verifiedMs: orNull(count('When all its bytes had been read back there, ms since 1970')),
  }),
  Points: object({
    points: list(reference('Point')),
    next: orNull(text('`after` of the next page')),
  }),
  PointRequest: {
    type: 'object',
    required: ['server'],
    properties: {
      server: text('Source server'),
      wait: flag('Answer when the point is sealed'),
      timeoutMs: count('Longest wait'),
    },
  },
  PointRequested: object({
    requestId: text('Identity of the request'),
    point: orNull(reference('Point')),
  }),
  Hold: object({
    reason: text('Why; empty where the object of the hold is damaged'),
    time: text('Since when, by the clock of staging, ISO 8601'),
  }),
  HoldRequest: object({ reason: text('Why the point must stay') }),
  Released: object({ released: text('Id of the point') }),
  RetentionState: object({
    isWaiting: flag('No point is dropped until an operator agrees'),
    reason: text('Why'),
    keep: text('The policy of servers that have none of their own'),
  }),
  RetentionRun: object({ dropped: list(text('Id of a point that went')) }),
  PlannedPoint: object({
    point: text('Id'),
    server: text('Source server'),
    time: text('T, ISO 8601'),
    keptBy: list(text('A rule, newest, hold, future or policy unknown'), 'Empty: it goes'),
  }),
  Freed: object({
    contents: count('Contents that nothing would need any more'),
    storedBytes: count('Their bytes, as stored'),
    mapBytes: count('Bytes of maps'),
    isEstimate: flag('Always true: about 1 in 100 is not counted'),
  }),
  RetentionPlan: object({
    keep: list(text('Id of a point')),
    drop: list(text('Id of a point')),
    points: list(reference('PlannedPoint')),
    freed: orNull(reference('Freed')),
    state: reference('RetentionState'),
  }),
  KeepPolicy: object({
    server: text('Source server'),
    keep: text('The policy by which its points are kept'),
    isDefault: flag('It is the default of the service'),
    isDamaged: flag('Its own cannot be read: nothing of it is dropped'),
  }),
  KeepPolicyRequest: object({ keep: orNull(text('Rules or a preset; null: the default')) }),
  ServerVolume: object({
    volume: text('Path as given to the agent'),
    sizeBytes: count('Size'),
    sectorBytes: count('Logical sector size'),
    generation: text('Identity of the unbroken history'),
    epoch: count('Committed epochs of the generation'),
    state,
    reason: text('Why the state is what it is'),
    backlogBytes: count('Changed and not yet committed'),
    syncedBytes: count('Progress of an initial sync or rescan'),
    totalBytes: count('Its whole'),
    missedCompletions: count('Completions that the tracker did not see'),
    suspectBlocks: count('Blocks read again because of them'),
  }),
  Server: object({
    server: text('Name'),
    connected: flag('An agent is connected'),
    state,
    lagMs: orNull({ type: 'number', description: 'Age of the newest whole point' }),
    backlogBytes: count('Changed and not yet committed'),
    hardwareId: text('Machine that holds the name'),
    pendingHardwareId: orNull(text('Machine that was refused the name')),
    refused: list(reference('RefusedMachine')),
    since: orNull(text('Since when the machine has the name, ISO 8601')),
    fromPoint: orNull(text('The newest whole point when it took the name')),
    former: list(reference('FormerHolder')),
    agentVersion: text('Version of the agent'),
    receivedBytes: count('Bytes over the wire since staging began'),
    contentBytes: count('Of them, bytes of contents, as sent'),
    dedupeHits: count('Contents that were not sent because staging had them'),
    dedupedBytes: count('Bytes that were not sent because staging had them'),
    durability,
    points: count('Recovery points that are kept'),
    keep: text('The policy by which they are kept'),
    volumes: list(reference('ServerVolume')),
    newestPoint: orNull(reference('Point')),
    machine: orNull(reference('Machine')),
    prestage: orNull(reference('PrestagedServer')),
    check: reference('ServerCheck'),
  }),
  Machine: object(machine),
  MachineReport: object({ ...machine, findings: list(reference('MachineFinding')) }),
  MachineFinding: object({
    code: text('Stable code of what was found'),
    severity: { type: 'string', enum: [...severities] },
    subject: text('Device, file or mount point; empty: the machine'),
    seen: text('What was seen'),
    action: text('What to do; empty: nothing'),
  }),
  Servers: object({ servers: list(reference('Server')) }),
  Admission: object({ hardwareId: text('Of a machine that was refused the name') }),
  ComparisonRequest: object({
    first: count('Index of the first chunk; a chunk has 65536 bytes, the last of a volume less'),
    digests: text('SHA-256s of the chunks, 32 bytes each, one after the other, base64'),
  }),
  Comparison: object({
    different: text('A bit for each chunk, base64, lowest bit first; 1: the point has other bytes'),
    zero: text('The same; 1: it differs, and the point has zeros there'),
    count: count('How many differ'),
  }),
  RefusedMachine: object({
    hardwareId: text('Digest of what tells the machine from its clones'),
    words: list(text("What the machine says of itself: its firmware's UUID, an instance's id")),
    peer: text('Where it came from'),
    first: text('First attempt since staging began, ISO 8601'),
    last: text('Last attempt, ISO 8601'),
    attempts: count('How often it came'),
    job: orNull(text('Drill or failover whose machine it is, where that is known')),
  }),
  FormerHolder: object({
    hardwareId: text('Machine that had the name'),
    since: text('ISO 8601; empty: not noted'),
    until: text('ISO 8601'),
    lastPoint: orNull(text('The newest whole point when it lost the name')),
  }),
  Statistics: object({
    points: count('Recovery points'),
    stagedPoints: count('Points that still need the journal'),
    servers: count('Source servers'),
    logicalBytes: count('Sum of the sizes of the images'),
    pieceBytes: count('Distinct contents, before compression'),
    storedBytes: count('Distinct contents, as stored'),
    packs: count('Packs'),
    journalBytes: count('Bytes in the journal'),
    dedupeHits: count('Contents that came again'),
    sealingWaits: orNull(reference('SealingTrouble')),
    receivedBytes: count('Bytes over the wire since staging began'),
    usage: orNull(reference('Usage')),
  }),
  SealingTrouble: object({
    code: text('Code of the error'),
    message: text('What keeps points from being sealed; it is tried again'),
    sinceMs: count('Since when, ms since 1970'),
  }),
  ...usageSchemas,
  Status: object({
    version: text('Version of the service'),
    state: text('"running"'),
    repository: text('Its directory, or s3://bucket/prefix'),
    durability,
    retention: reference('RetentionState'),
  }),
  ScrubRound: object({
    startedMs: count('Milliseconds since 1970'),
    endedMs: count('Milliseconds since 1970'),
    packs: count('Packs read'),
    bytes: count('Bytes read'),
  }),
  Scrub: object({
    state: { type: 'string', enum: ['off', 'waiting', 'reading'] },
    everyMs: count('A round begins so long after the one before; 0: none'),
    bytesPerSecond: count('Rate at which it reads; 0: no limit'),
    startedMs: orNull(count('Of the round under way, or the last; milliseconds since 1970')),
    packs: count('Packs read in it'),
    bytes: count('Bytes read in it'),
    finished: orNull(reference('ScrubRound')),
    checkedMs: orNull(count('When the findings were made; milliseconds since 1970')),
    findings: list(reference('Finding')),
    hurtPoints: list(text('Id of a point that cannot be restored wholly')),
  }),
  CheckRequest: {
    type: 'object',
    properties: {
      readData: flag('Read and verify every byte'),
      readDataSubset: text('Read and verify a part: N/M, P% or a size'),
    },
  },
  Finding: {
    type: 'object',
    required: ['kind', 'object', 'detail', 'points'],
    properties: {
      kind: text('Kind of damage'),
      object: text('Object of the repository'),
      detail: text('What is wrong'),
      points: list(text('Id of a point that it hurts')),
      digest: text('Name of the content that it is about, hex'),
      epoch: object({
        server: text('Source server'),
        volume: text('Volume'),
        generation: text('Identity of the unbroken history'),
        epoch: count('Epoch to which no maps lead'),
      }),
    },
  },
  CheckReport: object({
    points: count('Points checked'),
    objects: count('Objects checked'),
    pieces: count('Contents located'),
    bytesRead: count('Bytes read'),
    findings: list(reference('Finding')),
  }),
  CheckJob: object({
    jobId: text('Identity'),
    state: { type: 'string', enum: ['running', 'done', 'failed'] },
    done: count('Steps done'),
    total: count('Steps in all'),
    report: orNull(reference('CheckReport')),
    error: orNull(text('Why it failed')),
  }),
  Digests: object({
    pieces: list(
      object({ offset: count('Offset'), length: count('Length'), digest: text('SHA-256, hex') }),
    ),
    next: orNull(count('`offset` of the next page')),
    sizeBytes: count('Size of the image'),
  }),
  Differences: object({
    extents: list(object({ offset: count('Offset'), length: count('Length') }), 'Ascending'),
    next: orNull(count('`offset` of the next page')),
  }),
  CopyRequest: {
    type: 'object',
    required: ['to'],
    properties: {
      to: text('A place that staging was started with (--copy-to)'),
      server: text('Only points of this server'),
      sinceMs: count('Only points that are not older, ms since 1970'),
      newest: { type: 'integer', minimum: 1, description: 'Only so many of each server' },
      verify: { type: 'string', enum: ['none', 'new', 'all'], description: 'Read back there' },
    },
  },
  CopyProgress: object({
    points: count('Points done'),
    ofPoints: count('Points to be copied'),
    bytesRead: count('Bytes read at the source'),
    bytesWritten: count('Bytes written at the destination'),
  }),
  SkippedPoint: object({
    point: text('Id'),
    server: text('Source server'),
    reason: { type: 'string', enum: ['damaged', 'dropped'] },
    detail: text('What is wrong'),
  }),
  CopyVerified: object({
    objects: count('Objects read back'),
    pieces: count('Contents read back'),
    bytesRead: count('Bytes read'),
    findings: list(reference('Finding')),
  }),
  CopyReport: object({
    place: text('Where the copy is'),
    repository: text('Id of the repository there'),
    points: count('Points copied'),
    held: count('Points that are there now'),
    unsealed: count('Points left for the next copy: they are not sealed yet'),
    skipped: list(reference('SkippedPoint')),
    maps: count('Bases and deltas copied'),
    pieces: count('Contents copied'),
    bytesRead: count('Bytes read at the source'),
    bytesWritten: count('Bytes written at the destination'),
    dropped: count('Points dropped by the retention of the destination'),
    freedBytes: count('Bytes freed by collection there'),
    verified: orNull(reference('CopyVerified')),
    isNoted: flag('The source knows of it: its points show this copy'),
    tookMs: count('Milliseconds'),
  }),
  CopyJob: object({
    jobId: text('Identity'),
    place: text('Destination'),
    state: { type: 'string', enum: ['running', 'done', 'failed', 'stopped'] },
    startedMs: count('ms since 1970'),
    progress: reference('CopyProgress'),
    report: orNull(reference('CopyReport')),
    error: orNull(reference('ErrorBody')),
  }),
  CopyPlace: object({
    place: text('Destination'),
    everyMs: orNull(count('Copied so often; null: only when asked')),
    nextMs: orNull(count('When the next copy begins, ms since 1970')),
    repository: orNull(text('Id of the repository there')),
    copiedMs: orNull(count('When the last copy began, ms since 1970')),
    verifiedMs: orNull(count('When all that is there had been read back; null: parts never were')),
    points: count('Points that are there'),
    jobId: orNull(text('The copy that is under way')),
    error: orNull(reference('ErrorBody')),
  }),
  Copies: object({ copies: list(reference('CopyPlace')) }),
};
