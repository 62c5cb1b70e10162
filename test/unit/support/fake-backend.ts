/** A backend of the REST API with two points of one server in memory, whose images are given bytes. */
import { createHash } from 'node:crypto';
import { systemClock } from '../../../src/base/clock.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { MachineReport } from '../../../src/model/machine.ts';
import type { ApiBackend } from '../../../src/staging/api/backend.ts';
import type {
  ApiFailback,
  ApiFailbackPreview,
  ApiPrestagedServer,
  ApiServer,
} from '../../../src/staging/api-types.ts';
import { Copies } from '../../../src/staging/copies.ts';

import type { ShownJob } from '../../../src/staging/jobs/jobs.ts';

import { summaryOf } from '../../../src/staging/machines.ts';

import type {
  CopyDestination,
  CopyReport,
  ImageReader,
  ListedPoint,
  Store,
} from '../../../src/store/types.ts';

export const VOLUME = '/dev/disk/by-id/a b';

export const fakePoint = (id: string, state: 'staged' | 'sealed' = 'sealed'): ListedPoint => ({
  id,
  server: 'web1',
  time: '2026-11-20T10:31:07.123Z',
  cut: { method: 'validated', passes: 2, durationMs: 12.5 },
  volumes: [
    {
      volume: VOLUME,
      sizeBytes: 4096,
      sectorBytes: 512,
      generation: 'ab'.repeat(16),
      epoch: 3,
      chainRoot: 'cd'.repeat(32),
    },
  ],
  missingVolumes: [],
  state,
  hold: null,
  copies: [],
});

export const FAR = '/far';

export const fakeReport = (place = FAR): CopyReport => ({
  ...{ place, repository: 'ab'.repeat(16), points: 1, held: 2, unsealed: 0 },
  skipped: [{ point: 'p', server: 'web1', reason: 'damaged', detail: 'a content is gone' }],
  ...{ maps: 2, pieces: 3, bytesRead: 4096, bytesWritten: 2048, dropped: 0, freedBytes: 0 },
  verified: { objects: 4, pieces: 3, bytesRead: 2048, findings: [] },
  ...{ isNoted: true, tookMs: 12 },
});

const fakeCopies = (): Copies => {
  const place: CopyDestination = {
    name: FAR,
    open: async () => ({ name: FAR, close: async () => undefined }) as never,
  };
  const known = { place: FAR, repository: 'ab'.repeat(16), timeMs: 1, verifiedMs: null, points: 2 };
  return new Copies({
    ...{ clock: systemClock, log: silentLog, places: [place], everyMs: null, newId: () => 'copy1' },
    store: { copy: async () => fakeReport(), copies: () => [known] },
    ...{ bytesPerSecond: 0, verify: 'none', isClockTrusted: () => true },
  });
};

export const fakeMachine = (): MachineReport => ({
  timeMs: Date.UTC(2026, 10, 20),
  ...{ architecture: 'x86_64', kernel: '6.1.0', system: 'Debian', bootMode: 'bios' },
  ...{ cpuCount: 2, memoryBytes: 2 ** 32, bootVolume: VOLUME },
  findings: [
    {
      ...{ code: 'root-name', severity: 'blocks-boot', subject: '/boot/grub/grub.cfg' },
      ...{ seen: 'root=/dev/sda1\u001b[2J', action: 'use UUID' },
    },
    {
      ...{ code: 'console-serial', severity: 'advice', subject: '' },
      ...{ seen: 'the kernel is not told', action: 'add it' },
    },
  ],
});

export const fakeCheck = (): ApiServer['check'] => ({
  ...{ server: 'web1', everyMs: 86_400_000, options: { probe: 'tcp:22' }, isDefault: false },
  ...{ defaultEveryMs: 0, state: 'waiting', nextMs: 5, waitsFor: null, failures: 2 },
  last: {
    ...{ point: 'p', pointTime: 't', job: null, startedAt: 't', outcome: 'failed', endedAt: null },
    detail: 'no answer within 10m',
  },
});

const fakeServer = (): ApiServer => ({
  server: 'web1',
  connected: true,
  state: 'continuous',
  lagMs: 1200,
  backlogBytes: 4096,
  hardwareId: 'ef'.repeat(32),
  pendingHardwareId: null,
  refused: [
    {
      ...{ hardwareId: '77'.repeat(32), words: ['w'], peer: '10.0.0.1:1', attempts: 2, job: 'j' },
      ...{ first: '2026-11-20T10:00:00.000Z', last: '2026-11-20T10:01:00.000Z' },
    },
  ],
  since: '2026-11-20T09:00:00.000Z',
  fromPoint: null,
  former: [
    { hardwareId: '66'.repeat(32), since: '', until: '2026-11-20T09:00:00.000Z', lastPoint: null },
  ],
  agentVersion: '0.1.0',
  receivedBytes: 10,
  contentBytes: 5,
  dedupeHits: 1,
  dedupedBytes: 20,
  points: 2,
  keep: 'all=1h',
  durability: 'local',
  volumes: [
    {
      volume: VOLUME,
      sizeBytes: 4096,
      sectorBytes: 512,
      generation: 'ab'.repeat(16),
      epoch: 3,
      state: 'continuous',
      reason: '',
      backlogBytes: 4096,
      syncedBytes: 4096,
      totalBytes: 4096,
      missedCompletions: 0,
      suspectBlocks: 0,
    },
  ],
  newestPoint: fakePoint('20261120T103107.123Z-00000002'),
  machine: summaryOf(fakeMachine()),
  prestage: fakePrestaged(),
  check: fakeCheck(),
});

export const fakeJob = (changes: Partial<ShownJob> = {}): ShownJob => ({
  id: '20261121T153512Z-3fa9c1d2',
  kind: 'drill',
  target: 'qemu',
  server: 'web1',
  point: '20261120T103107.123Z-00000002',
  pointTime: '2026-11-20T10:31:07.123Z',
  options: { memoryBytes: 1, check: true },
  state: 'running',
  outcome: null,
  ending: null,
  phase: 'up',
  access: { serial: 'socat' },
  check: { passed: true, probe: 'console', bootMs: 7000, detail: 'web1 login:' },
  error: null,
  ...{ cleanError: null, cleanTries: 0, cleanAgainAt: null },
  keeps: false,
  standsAlone: false,
  damage: [{ volume: VOLUME, offset: 65_536, length: 65_536 }],
  isDiscarded: false,
  starts: 1,
  made: [{ kind: 'folder', name: '/x', isProduct: true }],
  createdAt: '2026-11-21T15:35:12.000Z',
  endedAt: null,
  progress: { done: 1, total: 2 },
  unwritten: 'no room',
  folder: '/data/jobs/x',
  steps: null,
  ...changes,
});

const fakeStep: NonNullable<ShownJob['steps']>[number] = {
  ...{ number: 1, group: 'g', kind: 'member', name: 'web1', isCritical: true, state: 'failed' },
  ...{ attempt: 1, job: 'x.1.1', point: 'p', pointTime: 't', startedAt: 't', endedAt: 't' },
  error: { code: 'ERR_X', message: 'it broke', hint: 'look' },
};

export const fakePlanFile = {
  ...{ name: 'shop', description: 'all', parallel: 1 },
  groups: [
    {
      ...{ name: 'g', waitBefore: '1s', waitAfter: '1s', pre: 'a', members: [{ server: 'web1' }] },
      post: [{ script: 'b', arguments: ['x'], timeout: '1m', isCritical: false }],
    },
  ],
};

function fakePlans(): ApiBackend['plans'] {
  const plan = {
    ...{ name: 'shop', description: 'all', appliedAt: 't', groups: ['g'], servers: ['web1'] },
    file: fakePlanFile,
  };
  const find = async (name: string) => {
    if (name === 'shop') return plan;
    throw new UnderstudyError('ERR_PLAN_NOT_FOUND', `no plan "${name}"`);
  };
  const problem = { code: 'ERR_X', message: 'it broke', hint: 'look' };
  const member = {
    ...{ group: 'g', server: 'web1', isCritical: true, target: 'qemu', point: 'p' },
    ...{ pointTime: 't', ageMs: 1.5, isVerified: true, problem },
  };
  const script = { group: 'g', when: 'pre' as const, script: 'a', isCritical: true, problem };
  return {
    plans: {
      list: async () => [plan],
      find,
      remove: async (name) => {
        await find(name);
      },
    },
    runner: {
      apply: async () => ({ ...plan, missing: ['no script a'] }),
      dryRun: async (name, kind) => ({
        ...{ name, kind, isReady: false, members: [member], scripts: [script] },
      }),
      retry: async (id) => fakeJob({ id, kind: 'plan', steps: [fakeStep] }),
      accept: async (id) => fakeJob({ id, kind: 'plan', steps: [fakeStep] }),
    },
    verdicts: { of: async () => new Map() },
  };
}

/** Jobs that are what they are. */
function fakeJobs(): ApiBackend['jobs'] {
  const find = (id: string) => {
    if (id === 'none') throw new UnderstudyError('ERR_JOB_NOT_FOUND', `no job "${id}"`);
    return id === 'former' ? fakeJob({ id, kind: 'failover', outcome: 'done' }) : fakeJob({ id });
  };
  const { passed, probe, bootMs, detail } = fakeJob().check!;
  return {
    start: async ({ point, target }) => fakeJob({ point, target }),
    startWork: async ({ kind, server }) =>
      fakeJob({ kind, server, point: '', target: '', steps: [fakeStep] }),
    list: () => [fakeJob(), fakeJob({ id: 'former', state: 'cleaned', outcome: 'done' })],
    uncleaned: () => [fakeJob({ cleanError: 'busy', cleanTries: 1, cleanAgainAt: 't' })],
    find,
    damaged: async () => undefined,
    refuseWork: () => undefined,
    cancel: async (id) => find(id),
    stop: async (id) => find(id),
    startAgain: async (id) => find(id),
    discard: async (id) => find(id),
    remove: async (id) => find(id),
    log: async (id) => `a line of ${find(id).id}\n`,
    evidence: async () => Buffer.from('console'),
    bootCheck: async (point) => ({
      ...{ passed, probe, bootMs, detail, point, server: 'web1', job: 'x' },
      time: '2026-11-21T15:36:00.000Z',
    }),
  };
}

export const fakePrestaged = (): ApiPrestagedServer => ({
  ...{ server: 'web1', isOn: true, state: 'failing', reason: '', endedMs: 5, putBlocks: 7 },
  volumes: [
    {
      ...{ volume: VOLUME, snapshotId: 'snap-1', point: 'p1', sizeGiB: 8 },
      encryption: { kmsKeyArn: null },
    },
  ],
  progress: { volume: VOLUME, doneBytes: 1, totalBytes: 2 },
  ...{ nextMs: 9, failures: 2, error: { code: 'ERR_AWS_DENIED', message: 'no', hint: 'ask' } },
});

function fakePrestage(): ApiBackend['prestage'] {
  const list = () => ({
    ...{
      everyMs: 3_600_000,
      region: 'eu-central-1',
      bytesPerSecond: 1,
      servers: [fakePrestaged()],
    },
  });
  return { list, switch: async () => fakePrestaged(), run: async () => fakePrestaged() };
}

export const fakeFailback = (job: string): ApiFailback => ({
  ...{ job, server: 'web1', phase: 'fenced', message: 'write it home' },
  ...{ original: 'aa'.repeat(32), instance: 'bb'.repeat(32), fromPoint: null },
  ...{ lastPoint: 'p', newestPoint: 'p', connected: false, state: 'disconnected', lagMs: null },
  ...{ syncedBytes: 1, totalBytes: 2 },
  written: [
    {
      ...{ volume: VOLUME, point: 'p', time: '2026-11-21T15:35:12.000Z' },
      ...{ chunks: 3, different: 2, writtenBytes: 1 },
    },
  ],
});

export const fakePreview = (server: string): ApiFailbackPreview => ({
  ...{ server, original: 'aa'.repeat(32), since: null, connected: true, state: 'continuous' },
  ...{ lagMs: 1200, newestPoint: { id: 'p', time: '2026-11-20T10:31:07.123Z' } },
  ...{ job: 'j1', jobPhase: 'up', instance: 'bb'.repeat(32) },
  lastSeen: '2026-11-21T15:35:12.000Z',
});

export interface FakeBackend extends ApiBackend {
  readonly openReaders: () => number;
  readonly admitted: string[];
}

export function fakeBackend(
  image: Uint8Array,
  damagedFrom = Number.POSITIVE_INFINITY,
): FakeBackend {
  let open = 0;
  const admitted: string[] = [];
  const points = ['20261120T103107.123Z-00000002', '20261120T103102.123Z-00000001'].map((id) =>
    fakePoint(id),
  );
  const find = async (id: string) => {
    const point = points.find((candidate) => candidate.id === id);
    if (point === undefined) throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`);
    return point;
  };
  const reader = (): ImageReader => ({
    sizeBytes: image.length,
    etag: createHash('sha256').update(image).digest('hex'),
    async read(offset, length) {
      if (offset + length > damagedFrom) {
        throw new UnderstudyError('ERR_PIECE_DAMAGED', 'a content is damaged', { offset });
      }
      return image.slice(offset, offset + length);
    },
    nextData: async (offset) =>
      offset >= image.length ? null : { offset, length: image.length - offset },
    close() {
      open -= 1;
    },
  });
  const store: Partial<Store> = {
    points: async ({ server, after, limit = 100 }) => {
      const start = after === undefined ? 0 : points.findIndex(({ id }) => id === after) + 1;
      const own = points.filter((point) => server === undefined || point.server === server);
      return own.slice(start, start + limit);
    },
    // Of machines whose clocks are right.
    lastCommitted: async (server) =>
      points.find((point) => point.server === server && point.missingVolumes.length === 0) ?? null,
    point: find,
    seal: async (id) => {
      await find(id);
    },
    async openImage(id, volume) {
      await find(id);
      if (volume !== VOLUME) throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', `no ${volume}`);
      open += 1;
      return reader();
    },
    async compareChunks(id, _volume, first, digests) {
      await find(id);
      const bits = Uint8Array.of(first === 0 && digests.length === 32 ? 1 : 0);
      return { different: bits, zero: new Uint8Array(1), count: bits[0]! };
    },
    async *differences(from, to, _volume, offset = 0) {
      await find(from);
      await find(to);
      const chunks = from === to ? 0 : 1200;
      for (let at = 0; at < chunks; at += 1) {
        const extent = { offset: at * 131_072, length: 65_536 };
        if (extent.offset + extent.length > offset) yield extent;
      }
    },
    servers: async () => [{ server: 'web1', volumes: [], newestPoint: points[0]! }],
    estimateFreed: async () => ({ contents: 1, storedBytes: 2, mapBytes: 3, isEstimate: true }),
    policies: () => [],
    setPolicy: async () => undefined,
    holdPoint: find,
    releasePoint: find,
    planRetention: async () => ({
      keep: points.map(({ id }) => id),
      drop: [],
      points: points.map(({ id }) => ({ id, server: 'web1', timeMs: 0, keptBy: ['newest'] })),
    }),
    async check({ onProgress }) {
      onProgress?.(1, 2);
      return { points: 2, objects: 4, pieces: 9, bytesRead: 4096, findings: [] };
    },
    usage: async () => ({
      ...{ logicalBytes: 1, contents: 1, rawBytes: 1, storedBytes: 1 },
      ...{ servers: [], points: [], isEstimate: true },
    }),
    statistics: async () => ({
      points: 2,
      stagedPoints: 0,
      servers: 1,
      logicalBytes: 8192,
      pieceBytes: 4096,
      storedBytes: 100,
      packs: 1,
      journalBytes: 0,
      sealingWaits: null,
      dedupeHits: 5,
    }),
  };
  return {
    scrub: {
      status: {
        ...{ state: 'waiting', everyMs: 1000, bytesPerSecond: 5, startedMs: 1, packs: 2, bytes: 3 },
        finished: { startedMs: 1, endedMs: 2, packs: 2, bytes: 3 },
        ...{ checkedMs: 4, findings: [], hurtPoints: [] },
      },
      noted: async () => undefined,
    },
    store: store as Store,
    clock: systemClock,
    log: silentLog,
    keep: [],
    stagingVersion: '0.1.0',
    repository: '/srv/repo',
    durability: 'local',
    servers: async () => [fakeServer()],
    requestPoint: () => ({ requestId: 'r1', committed: Promise.resolve(points[0]!.id) }),
    machine: (server) => (server === 'web1' ? fakeMachine() : null),
    admit: async (_server, hardwareId) => {
      admitted.push(hardwareId);
    },
    jobs: fakeJobs(),
    plans: fakePlans(),
    checker: { status: fakeCheck, setPolicy: async () => fakeCheck() },
    pointsInUse: { touch: async () => undefined },
    failbacks: {
      list: () => [fakeFailback('j')],
      find: fakeFailback,
      preview: async (server) => fakePreview(server),
      finish: async (job) => fakeFailback(job),
      written: async (job) => fakeFailback(job),
    },
    receivedBytes: () => 77,
    agentTokens: {
      tokenOf: (server) => `agent1.${server}`,
      serverOf: () => null,
      revoke: async () => undefined,
    },
    retention: { doubt: null, run: async () => [], resume: async () => undefined },
    copies: fakeCopies(),
    prestage: fakePrestage(),
    openReaders: () => open,
    admitted,
  };
}
