/**
 * One service at a time on one repository, also where no lock of a file system reaches: a lease of numbered
 * objects, each made once. Who makes the next number has the repository; who finds it taken has lost it.
 * A process that crashed leaves nothing behind that would have to be removed: whoever wants the repository
 * watches the newest number, and takes the next one when it has stood still for `expireMs`. Only the
 * watcher's own clock counts, so clocks need not agree.
 *
 * Whoever holds it asks `confirm` before each change. That cannot stop a process that is paused between
 * the question and the change: terms.ts makes what such a process writes count for nothing.
 */
import { type Clock, sleep, type Timer } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { discard, makeFolder } from '../format/object-file.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { Mutex } from '../mutex.ts';
import {
  decodeLease,
  encodeLease,
  type LeaseRecord,
  leaseName,
  MAX_TERM,
  parseLeaseName,
} from './lease-record.ts';

export interface LeaseTimes {
  readonly renewMs: number;
  /** The holder trusts a renewal for so long ... */
  readonly trustMs: number;
  /** ... and another process takes over where none was seen for so long. */
  readonly expireMs: number;
}

const defaultLeaseTimes: LeaseTimes = {
  renewMs: 10_000,
  trustMs: 20_000,
  expireMs: 45_000,
};

export interface LeaseWorld {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly log: Log;
  /** The folder of the leases; its root is how messages name the repository. */
  readonly folder: string;
  readonly repo: string;
  /** Path for a file that has not got its name yet. */
  readonly temporary: () => string;
  /** Hex digits, 32: this process, no other, and no former life of it. */
  readonly holder: string;
  readonly host: string;
  readonly times?: LeaseTimes;
  /** Highest term that is known from elsewhere: a damaged lease does not tell its own. */
  readonly knownTerm: number;
  /**
   * It commits nothing of its own (a copy): where the last holder was such a one too, and has said at its
   * end that nothing of it is under way, its term does.
   */
  readonly goesOn?: boolean;
}

/** Fewer terms left than this are told at each start: at one a minute they last nine days. */
const FEW_TERMS = Math.ceil(MAX_TERM / 10);
/** Keeps so many leases besides the newest: whoever is listing must find one. */
const KEPT = 2;

interface Found {
  readonly number: number;
  /** Null where it is damaged. */
  readonly record: LeaseRecord | null;
}

export class Lease {
  readonly term: number;
  private readonly world: LeaseWorld;
  private readonly times: LeaseTimes;
  private number: number;
  private renewedAt: { monotonicMs: number; wallMs: number };
  private readonly mutex = new Mutex();
  private timer: Timer | null = null;
  private lost: UnderstudyError | null = null;
  private isEnded = false;
  private onLost: (error: UnderstudyError) => void = () => undefined;

  private constructor(world: LeaseWorld, term: number, number: number) {
    this.world = world;
    this.times = world.times ?? defaultLeaseTimes;
    this.term = term;
    this.number = number;
    this.renewedAt = this.now();
    this.arm();
  }

  /**
   * Waits for `expireMs` where another process seems to hold it and is not seen.
   * ERR_REPOSITORY_IN_USE where it is seen.
   */
  static async take(world: LeaseWorld): Promise<Lease> {
    await makeFolder(world.disk, world.folder);
    const found = await newest(world);
    if (found !== null && found.record?.isReleased !== true) await watch(world, found);
    const term = nextTerm(world, found?.record ?? null);
    const number = (found?.number ?? 0) + 1;
    const holder = await put(world, number, { term, ...held });
    if (holder !== world.holder) throw inUse(world, null);
    return new Lease(world, term, number);
  }

  get holder(): string {
    return this.world.holder;
  }

  /** Called once, when another process has taken the repository. */
  set whenLost(onLost: (error: UnderstudyError) => void) {
    this.onLost = onLost;
  }

  /**
   * Resolves while the repository is ours: by a renewal that is not older than `maxAgeMs`, else by a new
   * one. ERR_LEASE_LOST; errors of the disk, and then the lease is not known to be ours.
   */
  async confirm(maxAgeMs = this.times.trustMs): Promise<void> {
    if (this.lost !== null) throw this.lost;
    if (this.ageMs() > maxAgeMs) await this.renew(maxAgeMs);
  }

  /** `confirm` for those who are handed nothing else. */
  readonly asked = (maxAgeMs: number): Promise<void> => this.confirm(maxAgeMs);

  /**
   * Ends it in order: the next process need not wait. Where that fails, it waits. `mayGoOn`: every change
   * has been answered, and no commit has a sequence of the term; so who commits nothing either may go on.
   */
  async release(mayGoOn = false): Promise<void> {
    this.isEnded = true;
    this.timer?.cancel();
    await this.mutex.run(async () => {
      if (this.lost !== null) return;
      try {
        const { world, number, term } = this;
        await put(world, number + 1, { term, isReleased: true, mayGoOn });
      } catch (error) {
        this.world.log.warn('the lease of the repository runs out by itself', {
          error: String(error),
        });
      }
    });
  }

  private arm(): void {
    if (this.isEnded) return;
    this.timer = this.world.clock.after(this.times.renewMs, () => {
      this.renew(this.times.renewMs / 2)
        .catch((error: unknown) => {
          if (this.lost !== null) return; // told by `lose`
          this.world.log.warn('the lease of the repository could not be renewed', {
            error: String(error),
          });
        })
        .finally(() => this.arm());
    });
  }

  /** By the clock that has gone further: one of them stands still while a machine is suspended. */
  private ageMs(): number {
    const now = this.now();
    const { monotonicMs, wallMs } = this.renewedAt;
    return Math.max(now.monotonicMs - monotonicMs, Math.abs(now.wallMs - wallMs));
  }

  private now() {
    const { clock } = this.world;
    return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
  }

  private renew(maxAgeMs: number): Promise<void> {
    return this.mutex.run(async () => {
      if (this.lost !== null) throw this.lost;
      if (this.isEnded || this.ageMs() <= maxAgeMs) return;
      const began = this.now();
      const number = this.number + 1;
      const holder = await put(this.world, number, { term: this.term, ...held });
      if (holder !== this.world.holder) throw this.lose(number);
      this.number = number;
      this.renewedAt = began;
      await this.removeOld();
    });
  }

  private lose(number: number): UnderstudyError {
    const { repo } = this.world;
    this.lost = new UnderstudyError(
      'ERR_LEASE_LOST',
      `${repo}: another staging service has taken the repository (lease ${number})`,
      { path: repo },
    );
    this.timer?.cancel();
    this.isEnded = true;
    this.onLost(this.lost);
    return this.lost;
  }

  private async removeOld(): Promise<void> {
    const { disk, folder } = this.world;
    const old = `${folder}/${leaseName(this.number - KEPT - 1)}`;
    if (this.number > KEPT + 1) await discard(disk, old);
  }
}

type Stand = Pick<LeaseRecord, 'term' | 'isReleased' | 'mayGoOn'>;

const held = { isReleased: false, mayGoOn: false } as const;

/** ERR_BUG where there is none. */
function nextTerm({ knownTerm, goesOn, log, repo }: LeaseWorld, last: LeaseRecord | null): number {
  if (goesOn === true && last?.mayGoOn === true && last.term > knownTerm) return last.term;
  const term = Math.max(knownTerm, last?.term ?? 0) + 1;
  if (term > MAX_TERM) throw new UnderstudyError('ERR_BUG', `${repo}: no term is left`);
  const left = MAX_TERM - term;
  if (left < FEW_TERMS)
    log.warn('few terms are left: copy the repository to a new place', { repo, left });
  return term;
}

function inUse({ repo }: LeaseWorld, record: LeaseRecord | null): UnderstudyError {
  const who = record === null ? '' : ` (on ${record.host}, term ${record.term})`;
  const message = `${repo}: another staging service uses this repository${who}`;
  return new UnderstudyError('ERR_REPOSITORY_IN_USE', message, { path: repo });
}

async function newestNumber({ disk, folder }: LeaseWorld): Promise<number | null> {
  const numbers = (await disk.list(folder)).flatMap(({ name }) => parseLeaseName(name) ?? []);
  return numbers.length === 0 ? null : Math.max(...numbers);
}

/** The lease with the highest number; null where there is none. */
async function newest(world: LeaseWorld): Promise<Found | null> {
  const { disk, folder } = world;
  const number = await newestNumber(world);
  if (number === null) return null;
  const path = `${folder}/${leaseName(number)}`;
  try {
    return { number, record: decodeLease(await disk.readFile(path), path) };
  } catch (error) {
    if (isNotFound(error)) return newest(world); // it is being renewed
    if (!isDamage(error)) throw error;
    return { number, record: null };
  }
}

/** Resolves where nobody has renewed what was found. */
async function watch(world: LeaseWorld, { number, record }: Found): Promise<void> {
  const { expireMs, renewMs } = world.times ?? defaultLeaseTimes;
  const { clock, log, repo } = world;
  const untilMs = clock.monotonicMs() + expireMs;
  log.warn('another staging service may be using the repository: waiting', {
    ...{ repo, host: record?.host ?? 'unknown', seconds: Math.round(expireMs / 1000) },
  });
  while (clock.monotonicMs() < untilMs) {
    await sleep(clock, Math.min(renewMs / 2, untilMs - clock.monotonicMs()));
    const found = await newest(world);
    if (found !== null && found.number !== number) throw inUse(world, found.record);
  }
}

/** Makes the lease `number`; returns whose it is: somebody may have been faster. */
async function put(world: LeaseWorld, number: number, stand: Stand): Promise<string> {
  const { disk, clock, folder, holder, host } = world;
  const path = `${folder}/${leaseName(number)}`;
  const temporary = world.temporary();
  const file = await disk.open(temporary, 'create');
  try {
    await file.write([encodeLease({ ...stand, holder, host, timeMs: clock.wallMs() })], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await disk.link(temporary, path);
    await disk.syncDirectory(folder);
  } catch (error) {
    if (!isTaken(error)) throw error;
    const taker = await holderOf(disk, path);
    if (taker !== holder) return taker;
  } finally {
    await discard(disk, temporary);
  }
  if (((await newestNumber(world)) ?? number) <= number) return holder;
  // The number was free again: whoever had it has gone on, and removed its old ones.
  await discard(disk, path);
  return 'another';
}

/** Ours, where the answer to an earlier try was lost. */
async function holderOf(disk: Disk, path: string): Promise<string> {
  try {
    return decodeLease(await disk.readFile(path), path).holder;
  } catch (error) {
    if (isDamage(error) || isNotFound(error)) return 'unknown';
    throw error;
  }
}

const isTaken = (error: unknown): boolean =>
  error instanceof UnderstudyError && error.code === 'ERR_DISK_EXISTS';
