/**
 * Repairs a repository whose service is stopped: whatever a check finds is made right from what can be
 * proved right - another copy here, the records of a pack, another repository with the same contents and
 * the same roots - and never from a guess. What nobody has stays as it is and is told.
 *
 * Works in rounds of look and mend, as one mended thing lets the next be seen; a round that mends nothing
 * is the last. Every step leaves a repository that is no worse: new packs, maps and points are durable
 * before what they replace goes (repair-packs.ts, repair-maps.ts). Cut short, it is simply begun again.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import { stagedOf, survey } from '../check/check.ts';
import type { Core } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { paths as pathsOf } from '../format/layout.ts';
import { makeFolder } from '../format/object-file.ts';
import type { KeyOptions } from '../keys/open-vault.ts';
import type { Lease } from '../lease/lease.ts';
import { leasedDisk } from '../lease/leased-disk.ts';
import { takeLease } from '../lease/take-lease.ts';
import { type OpenDirectory, openDirectory, openDirectoryIn, type ReadPlace } from '../offline.ts';
import type { Place } from '../place.ts';
import { condemn } from '../repository/condemned.ts';
import { clearTemporaries, type OpeningTold } from '../repository/repository.ts';
import type { Finding } from '../types.ts';
import { mendBundles } from './repair-bundles.ts';
import { type MendedFormat, mendFormat } from './repair-format.ts';
import { mendHolds, mendPolicies } from './repair-holds.ts';
import { mendKeys } from './repair-keys.ts';
import { mendLeases } from './repair-lease.ts';
import { MapRepair } from './repair-maps.ts';
import { PackRepair } from './repair-packs.ts';
import { type RepairStep, type RepairWorld, removeDamaged } from './repair-world.ts';

export interface RepairOptions {
  /** A data directory or its repo; of a `place` how messages name it. */
  readonly directory: string;
  /** A repository that lies in a bucket, open for writing. */
  readonly place?: RepairPlace;
  /** Another repository: a data directory or its repo, or a place that is open. */
  readonly from?: string | ReadPlace;
  /** The identity of the repository, where its catalog knows it. */
  readonly knownId?: string | null;
  /** Ids of its sealed points, where its catalog knows them. */
  readonly knownPoints?: ReadonlySet<string> | null;
  /** Nothing is changed: what would be done first is planned. */
  readonly isDryRun: boolean;
  readonly log: Log;
  readonly disk?: Disk;
  /** Of an encrypted repository. */
  readonly keys?: KeyOptions | undefined;
  readonly onProgress?: (done: number, total: number) => void;
  readonly onOpening?: OpeningTold;
}

export type RepairPlace = ReadPlace & Partial<Pick<Place, 'alone'>>;

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
 * The caller holds the lock of the data directory, or knows that nobody writes to the repository; where it
 * was ever leased, the lease is taken. ERR_DATA_FORMAT, ERR_REPAIR_SAME, ERR_REPOSITORY_IN_USE, and what
 * keeps files from being written.
 */
export async function repairRepository(given: RepairOptions): Promise<RepairReport> {
  const directory = given.place?.repo ?? resolve(given.directory);
  const options = { ...given, directory, disk: given.place?.disk ?? given.disk ?? nodeDisk };
  const { from, isDryRun } = options;
  const random = (count: number) => new Uint8Array(randomBytes(count));
  const donor = from === undefined ? null : await openDonor(from, options);
  try {
    const lease = isDryRun ? null : await leaseOf(options, random);
    try {
      const disk = lease === null ? options.disk : leasedDisk(options.disk, directory, lease);
      const scratch = given.place && (given.place.scratch ?? `${directory}/repairing`);
      const format = await mendFormat(directory, { ...options, disk, scratch }, random);
      const told = format === null ? { before: [], steps: [] } : asReport(format);
      const isLeft = format !== null && (isDryRun || !format.step.isPossible);
      if (isLeft) return { isDryRun, ...told, after: told.before };
      const report = await inRounds({ ...options, disk }, donor);
      if (!isDryRun && report.after.length === 0 && given.place === undefined) {
        await forgetNotes(options.disk, directory);
      }
      const { before, steps } = told;
      const all = { before: [...before, ...report.before], steps: [...steps, ...report.steps] };
      return { isDryRun, ...all, after: report.after };
    } finally {
      await lease?.release();
    }
  } finally {
    await donor?.core.files.close();
  }
}

const asReport = ({ finding, step }: MendedFormat) => ({ before: [finding], steps: [step] });

const openDonor = (
  from: string | ReadPlace,
  { log, disk, keys }: { log: Log; disk: Disk; keys?: KeyOptions | undefined },
) => (typeof from === 'string' ? openDirectory(from, log, disk, keys) : openDirectoryIn(from, log));

/** Null for a repository that lies in its data directory: its lock is enough. */
async function leaseOf(
  { directory, disk, log, place }: Rounds,
  random: (count: number) => Uint8Array,
): Promise<Lease | null> {
  const paths = pathsOf(place?.scratch ?? `${directory}/repairing`, directory);
  if (place === undefined && !(await disk.exists(paths.lease))) return null;
  const leaseBy = { holder: toHex(random(16)), host: hostname() };
  const lease = await takeLease({ disk, clock: systemClock, log, leaseBy }, paths);
  await place?.alone?.(lease?.term ?? 0, lease?.asked);
  return lease;
}

/** What the service has noted is mended. */
async function forgetNotes(disk: Disk, directory: string): Promise<void> {
  const path = pathsOf(directory).damage;
  if (!(await disk.exists(path))) return;
  await disk.remove(path);
  await disk.syncDirectory(directory);
}

type Rounds = RepairOptions & { readonly disk: Disk };

async function inRounds(options: Rounds, donor: OpenDirectory | null): Promise<RepairReport> {
  const { directory, isDryRun, log, disk, keys, knownPoints: known = null } = options;
  const { onOpening } = options;
  const where = { repo: directory, objects: null, keys, onOpening, ...options.place, disk };
  const steps: RepairStep[] = [];
  let before: readonly Finding[] | null = null;
  for (let round = 1; ; round += 1) {
    const opened = await openDirectoryIn(where, log);
    try {
      assertOther(opened, donor);
      const found = await look(opened, options);
      before ??= found.findings;
      const report = { isDryRun, before, steps, after: found.findings };
      if (found.findings.length === 0 || round > MAX_ROUNDS) return report;
      const { core } = opened;
      const mended: RepairStep[] = [];
      if (!isDryRun) await makeRoom(core);
      await mend({ core, known, donor: donor?.core ?? null, isDryRun, steps: mended }, found);
      steps.push(...mended.filter((step) => !steps.some((old) => isSame(old, step))));
      if (isDryRun || !mended.some(({ isPossible }) => isPossible)) return report;
    } finally {
      await opened.core.files.close();
    }
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
  const maps = new MapRepair(world);
  await maps.run(findings);
  await mendBundles(world, maps);
  await mendIndex(world, findings);
  await mendMarks(world, findings);
  await mendKeys(world, findings);
  await mendLeases(world, findings);
  await mendHolds(world, findings);
  await mendPolicies(world, findings);
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
    await removeDamaged(world, object, core.paths.index);
  }
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
