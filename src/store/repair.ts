/**
 * Repairs a repository whose service is stopped: whatever a check finds is made right from what can be
 * proved right - another copy here, the records of a pack, another repository with the same contents and
 * the same roots - and never from a guess. What nobody has stays as it is and is told.
 *
 * Works in rounds of look and mend, as one mended thing lets the next be seen; a round that mends nothing
 * is the last. Every step leaves a repository that is no worse: new packs, maps and points are durable
 * before what they replace goes (repair-packs.ts, repair-maps.ts). Cut short, it is simply begun again.
 */
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { stagedOf, survey } from './check.ts';
import { condemn } from './condemned.ts';
import type { Core } from './core.ts';
import { makeFolder } from './object-file.ts';
import { type OpenDirectory, openDirectory } from './offline.ts';
import { MapRepair } from './repair-maps.ts';
import { PackRepair } from './repair-packs.ts';
import type { RepairStep, RepairWorld } from './repair-world.ts';
import { clearTemporaries } from './repository.ts';
import type { Finding } from './types.ts';

export interface RepairOptions {
  /** A data directory or its repo. */
  readonly directory: string;
  /** Another repository: a data directory or its repo. */
  readonly from?: string;
  /** Nothing is changed: what would be done first is planned. */
  readonly isDryRun: boolean;
  readonly log: Log;
  readonly disk?: Disk;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface RepairReport {
  readonly isDryRun: boolean;
  readonly before: readonly Finding[];
  /** In the order in which they were done, or would be. */
  readonly steps: readonly RepairStep[];
  /** What is still wrong; of a dry run as before. */
  readonly after: readonly Finding[];
}

const MAX_ROUNDS = 6;

/**
 * The caller holds the lock of the data directory, or knows that nobody writes to the repository.
 * ERR_DATA_FORMAT, ERR_REPAIR_SAME, and what keeps files from being written.
 */
export async function repairRepository(options: RepairOptions): Promise<RepairReport> {
  const { directory, from, isDryRun, log, disk = nodeDisk } = options;
  const donor = from === undefined ? null : await openDirectory(from, log, disk);
  const steps: RepairStep[] = [];
  try {
    let before: readonly Finding[] | null = null;
    for (let round = 1; ; round += 1) {
      const opened = await openDirectory(directory, log, disk);
      try {
        assertOther(opened, donor);
        const found = await look(opened, options);
        before ??= found.findings;
        const isEnd = found.findings.length === 0 || round > MAX_ROUNDS;
        if (isEnd) return { isDryRun, before, steps, after: found.findings };
        const core = opened.core;
        const mended: RepairStep[] = [];
        const world = { core, donor: donor?.core ?? null, isDryRun, steps: mended };
        if (!isDryRun) await makeRoom(core);
        await mend(world, found);
        const isNew = (step: RepairStep) => !steps.some((old) => isSame(old, step));
        steps.push(...mended.filter(isNew));
        const isDone = mended.some(({ isPossible }) => isPossible);
        if (isDryRun || !isDone) return { isDryRun, before, steps, after: found.findings };
      } finally {
        await opened.core.files.close();
      }
    }
  } finally {
    await donor?.core.files.close();
  }
}

const isSame = (a: RepairStep, b: RepairStep): boolean =>
  a.object === b.object && a.action === b.action;

function assertOther(own: OpenDirectory, donor: OpenDirectory | null): void {
  if (donor?.core.paths.repo !== own.core.paths.repo) return;
  const message = `${own.core.paths.repo}: a repository is not repaired from itself`;
  throw new UnderstudyError('ERR_REPAIR_SAME', message, { path: own.core.paths.repo });
}

type Look = Awaited<ReturnType<typeof survey>> & { readonly findings: readonly Finding[] };

async function look({ core, damage }: OpenDirectory, options: RepairOptions): Promise<Look> {
  const { onProgress } = options;
  const found = await survey(core, stagedOf(core), {
    readData: true,
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  return { ...found, findings: [...damage, ...found.report.findings] };
}

/** What a repair that was cut short has left goes. */
async function makeRoom({ disk, paths }: Core): Promise<void> {
  await makeFolder(disk, paths.temporary);
  await clearTemporaries(disk, paths);
}

async function mend(world: RepairWorld, { report, packs }: Look): Promise<void> {
  const { findings } = report;
  await new PackRepair(world).run(packs, findings);
  await new MapRepair(world).run(findings);
  await mendIndex(world, findings);
  await mendMarks(world, findings);
}

/** An index object says nothing that footers do not say: it goes, and is made again. */
async function mendIndex(world: RepairWorld, findings: readonly Finding[]): Promise<void> {
  const { core, isDryRun, steps } = world;
  const isIndex = ({ object }: Finding) => object.startsWith(`${core.paths.index}/`);
  const stale = findings.filter(({ kind }) => kind === 'stale-index');
  const paths = new Set(stale.filter(isIndex).map(({ object }) => object));
  // Where pieces are not found it is not known which object hides them.
  const isHidden = stale.some((finding) => !isIndex(finding));
  if (isHidden) for (const { path } of core.index.objects.all) paths.add(path);
  for (const object of paths) {
    steps.push({ object, action: 'it goes: the footers of packs say the same', isPossible: true });
    if (isDryRun) continue;
    await core.files.drop(object);
    if (await core.disk.exists(object)) await core.disk.remove(object);
  }
  if (paths.size > 0 && !isDryRun) await core.disk.syncDirectory(core.paths.index);
}

/** A mark without its time: the grace begins anew. */
async function mendMarks(world: RepairWorld, findings: readonly Finding[]): Promise<void> {
  const { core, isDryRun, steps } = world;
  for (const { object, kind } of findings) {
    const id = /([0-9a-f]{32})\.condemned$/.exec(object)?.[1];
    if (id === undefined || kind !== 'damaged-object') continue;
    steps.push({ object, action: 'written anew: the grace begins again', isPossible: true });
    if (!isDryRun) await condemn(core, id);
  }
}
