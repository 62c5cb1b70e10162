/**
 * Opening a change tracker: which backend, and what it found of each volume's history (P6).
 *
 * `bpf` takes over what is pinned when boot, disk, place, size and health are all as they were;
 * otherwise the volume is attached afresh, as a new generation, and says why. `scan` has no help
 * from the kernel: every volume is fresh for ever, and the agent compares digests. An explicit
 * backend that cannot work throws; 'auto' tells what it chose and why.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import { MIB } from '../base/units.ts';
import { addon, guarded, type RawHeader } from './addon.ts';
import { refusalReason, refuseOverlaps } from './admission.ts';
import { type Loader, machineSysfs, programLoader, readBootId } from './loader.ts';
import type {
  DeviceGeometry,
  TrackedVolume,
  TrackedVolumeOptions,
  TrackerBackend,
} from './types.ts';

export interface TrackerOptions {
  /** 'auto' takes bpf where it works for all volumes, and says why where it does not. */
  backend: TrackerBackend | 'auto';
  volumes: readonly TrackedVolumeOptions[];
  /** Keeps the pins of several agents on one machine apart: the server's name. */
  instance?: string;
  /** For the planes of all volumes; they get coarser, to 64 KiB at most, to fit. */
  memoryBudgetBytes?: number;
  /** For tests: another loader. */
  loader?: Loader;
}

export interface Tracker {
  readonly backend: TrackerBackend;
  /** Why this backend: for the log. */
  readonly backendReason: string;
  /** In the order of the options. */
  readonly volumes: readonly TrackedVolume[];
  /** Where the pins lie; null for `scan`. */
  readonly pins: { control: string; volumes: string[] } | null;
  /** A new generation of one volume, attached afresh. The engine must open it anew. */
  renew(index: number, geometry: DeviceGeometry, reason: string): TrackedVolume;
  /** Lets go of the tracker; what is pinned goes on tracking. */
  close(): void;
}

const PIN_ROOT = '/sys/fs/bpf/understudy';
const DEFAULT_INSTANCE = 'default';
const DEFAULT_MEMORY_BUDGET_BYTES = 512 * MIB;
const GRANULARITIES_BYTES = [4096, 8192, 16384, 32768, 65536];
/** Two pairs of marks and the outstanding plane in the kernel, the pending plane in the agent. */
const PLANES = 6;
const SECTOR_BYTES = 512;

const newGeneration = () => randomBytes(16).toString('hex');
const pinName = (path: string) =>
  `volume_${createHash('sha256').update(path).digest('hex').slice(0, 16)}`;
/** bpffs allows no dots in names; a digest keeps two odd names apart. */
const instanceName = (instance: string) =>
  /^[A-Za-z0-9_-]{1,64}$/.test(instance)
    ? instance
    : createHash('sha256').update(instance).digest('hex').slice(0, 32);

/** Folder of the pins of an agent. */
export const pinDirectoryOf = (instance = DEFAULT_INSTANCE): string =>
  join(PIN_ROOT, instanceName(instance));

/** The finest granularity whose planes fit into the budget. Throws ERR_TRACKER_MEMORY. */
export function granularityFor(sizesBytes: readonly number[], budgetBytes: number): number {
  const needed = (granularity: number) =>
    sizesBytes.reduce((sum, size) => sum + (Math.ceil(size / granularity) * PLANES) / 8, 0);
  const found = GRANULARITIES_BYTES.find((granularity) => needed(granularity) <= budgetBytes);
  if (found !== undefined) return found;
  const least = Math.ceil(needed(GRANULARITIES_BYTES.at(-1)!) / MIB);
  throw new UnderstudyError(
    'ERR_TRACKER_MEMORY',
    `the volumes need at least ${least} MiB of marks`,
  );
}

function scanVolume(options: TrackedVolumeOptions): TrackedVolume {
  return {
    path: options.path,
    generation: newGeneration(),
    fresh: true,
    freshReason: 'scan',
    granularityBytes: GRANULARITIES_BYTES[0]!,
    committedEpoch: 0,
    synced: false,
  };
}

function openScan(options: TrackerOptions, backendReason: string): Tracker {
  const volumes = options.volumes.map(scanVolume);
  return {
    backend: 'scan',
    backendReason,
    volumes,
    pins: null,
    renew(index, _geometry, reason) {
      const renewed = { ...scanVolume(options.volumes[index]!), freshReason: reason };
      volumes[index] = renewed;
      return renewed;
    },
    close: () => undefined,
  };
}

/** Why the history in `header` is not this volume's unbroken one; '' where it is. */
export function lostHistoryReason(
  header: RawHeader,
  geometry: DeviceGeometry,
  bootId: string,
): string {
  if (header.bootId !== bootId) return 'reboot';
  if (
    header.diskMajor !== geometry.diskMajor ||
    header.diskMinor !== geometry.diskMinor ||
    header.diskSequence !== geometry.diskSequence
  ) {
    return 'device-replaced';
  }
  if (header.startBytes !== geometry.startBytes) return 'moved';
  if (header.sizeBytes !== geometry.sizeBytes) return 'resized';
  return header.taint === 0 ? '' : 'tainted';
}

class BpfTracker implements Tracker {
  readonly backend = 'bpf';
  readonly backendReason: string;
  readonly volumes: TrackedVolume[] = [];
  readonly pins: { control: string; volumes: string[] };
  readonly #options: TrackerOptions;
  readonly #directory: string;
  readonly #loader: Loader;
  readonly #bootId = readBootId();
  readonly #granularityBytes: number;
  #lock: number | null = null;

  constructor(options: TrackerOptions, backendReason: string) {
    this.#options = options;
    this.backendReason = backendReason;
    this.#directory = pinDirectoryOf(options.instance);
    this.#loader = options.loader ?? programLoader();
    const sizes = options.volumes.map((volume) => volume.geometry.sizeBytes);
    const budget = options.memoryBudgetBytes ?? DEFAULT_MEMORY_BUDGET_BYTES;
    this.#granularityBytes = granularityFor(sizes, budget);
    this.pins = {
      control: this.#directory,
      volumes: options.volumes.map((volume) => join(this.#directory, pinName(volume.path))),
    };
  }

  open(): void {
    this.#loader.prepare(this.#directory);
    this.#lock = guarded(() => addon().lockFolder(this.#directory));
    try {
      this.#detachOthers();
      this.#options.volumes.forEach((volume, index) => {
        const reason = this.#findHistory(index, volume);
        if (reason !== '') this.renew(index, volume.geometry, reason);
      });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Takes the volume over if its history is sound; otherwise tells why it is not. */
  #findHistory(index: number, volume: TrackedVolumeOptions): string {
    const folder = this.pins.volumes[index]!;
    if (!machineSysfs.exists(folder)) return 'first';
    const header = this.#readHeader(folder);
    if (typeof header === 'string') return header;
    const reason = lostHistoryReason(header, volume.geometry, this.#bootId);
    if (reason !== '') return reason;
    const { generation, granularityBytes, committedEpoch, synced } = header;
    this.volumes[index] = {
      path: volume.path,
      generation,
      fresh: false,
      freshReason: '',
      granularityBytes,
      committedEpoch,
      synced,
    };
    return '';
  }

  #readHeader(folder: string): RawHeader | string {
    try {
      return guarded(() => addon().readHeader(this.#directory, folder));
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      if (error.code === 'ERR_TRACKER_DAMAGED') return 'damaged';
      if (error.code === 'ERR_TRACKER_PIN') return 'program-gone';
      throw error;
    }
  }

  /** Volumes that this agent no longer replicates are tracked no longer. */
  #detachOthers(): void {
    const wanted = new Set(this.#options.volumes.map((volume) => pinName(volume.path)));
    for (const name of readdirSync(this.#directory)) {
      if (name !== 'control' && !wanted.has(name)) this.#loader.detach(this.#directory, name);
    }
  }

  renew(index: number, geometry: DeviceGeometry, reason: string): TrackedVolume {
    const { path } = this.#options.volumes[index]!;
    const refusal = refusalReason({ path, geometry }, machineSysfs);
    if (refusal !== null) throw refused(path, refusal);
    const renewed: TrackedVolume = {
      path,
      generation: newGeneration(),
      fresh: true,
      freshReason: reason,
      granularityBytes: this.#granularityBytes,
      committedEpoch: 0,
      synced: false,
    };
    const name = pinName(path);
    this.#loader.detach(this.#directory, name);
    this.#loader.attach({
      pinDirectory: this.#directory,
      name,
      geometry,
      granularityBytes: renewed.granularityBytes,
      generation: renewed.generation,
      bootId: this.#bootId,
    });
    this.volumes[index] = renewed;
    return renewed;
  }

  close(): void {
    if (this.#lock !== null) addon().unlockFolder(this.#lock);
    this.#lock = null;
  }
}

function refused(path: string, reason: string): UnderstudyError {
  return new UnderstudyError('ERR_TRACKER_REFUSED', `${path} cannot be tracked: ${reason}`, {
    volume: path,
  });
}

function firstRefusal(volumes: readonly TrackedVolumeOptions[]): UnderstudyError | null {
  for (const volume of volumes) {
    const reason = refusalReason(volume, machineSysfs);
    if (reason !== null) return refused(volume.path, reason);
    if (volume.geometry.sizeBytes % SECTOR_BYTES !== 0) return refused(volume.path, 'odd size');
  }
  return null;
}

function openBpf(options: TrackerOptions, backendReason: string): Tracker {
  const refusal = firstRefusal(options.volumes);
  if (refusal !== null) throw refusal;
  const tracker = new BpfTracker(options, backendReason);
  tracker.open();
  return tracker;
}

/** What 'auto' may take as a reason to scan; the rest (another agent, a defect) is an error. */
const FALLBACK_CODES = ['ERR_TRACKER_REFUSED', 'ERR_TRACKER_LOAD', 'ERR_TRACKER_PERMISSION'];

/** Opens or takes over the tracker of a set of volumes. Throws ERR_TRACKER_*. */
export async function openTracker(options: TrackerOptions): Promise<Tracker> {
  refuseOverlaps(options.volumes, machineSysfs);
  if (options.backend === 'scan') return openScan(options, 'asked for');
  if (options.backend === 'bpf') return openBpf(options, 'asked for');
  try {
    return openBpf(options, 'all volumes can be tracked');
  } catch (error) {
    const isReason = error instanceof UnderstudyError && FALLBACK_CODES.includes(error.code);
    if (!isReason) throw error;
    return openScan(options, error.message);
  }
}
