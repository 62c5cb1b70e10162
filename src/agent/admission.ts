/**
 * Which paths may be volumes of one agent: refused by name and with a reason, before anything is opened.
 * Facts are gathered by `volume-facts.ts`; this file judges them and is pure. Whether a tracker can follow
 * a device is the native layer's judgement.
 */
import { UnderstudyError } from '../base/errors.ts';
import { formatSize } from '../base/units.ts';
import { MAX_VOLUME_BYTES } from '../model/geometry.ts';

export interface BlockFacts {
  readonly major: number;
  readonly minor: number;
  /** The whole disk's number: equal to the above for a disk. */
  readonly diskMajor: number;
  readonly diskMinor: number;
  /** Name under /sys/class/block. */
  readonly kernelName: string;
  /** Mapped or raid devices are made of these. */
  readonly slaves: readonly string[];
  /** The multipath device that this is a path of, or ''. */
  readonly multipath: string;
  /** File behind a loop device, or ''. */
  readonly backingFile: string;
}

export type VolumeFacts = { readonly path: string; readonly realPath: string } & (
  | { readonly kind: 'unreadable'; readonly errno: string }
  | { readonly kind: 'other' }
  | { readonly kind: 'directory'; readonly mountedFrom: string }
  | { readonly kind: 'file'; readonly identity: string }
  | { readonly kind: 'block'; readonly block: BlockFacts }
);

/** Throws ERR_DEVICE_OPEN, ERR_DEVICE_NOT_VOLUME, ERR_TRACKER_REFUSED, ERR_TRACKER_OVERLAP. */
export function admit(volumes: readonly VolumeFacts[]): void {
  for (const facts of volumes) admitOne(facts);
  volumes.forEach((facts, index) => {
    for (const other of volumes.slice(0, index)) admitPair(other, facts);
  });
}

/** Throws ERR_DEVICE_NOT_VOLUME for a volume that cannot be told to staging: without a byte, or too large. */
export function admitSize(path: string, sizeBytes: number): void {
  if (sizeBytes > 0 && sizeBytes <= MAX_VOLUME_BYTES) return;
  const most = `volumes have up to ${formatSize(MAX_VOLUME_BYTES)}`;
  const what = sizeBytes === 0 ? 'has no bytes' : `has ${formatSize(sizeBytes)}: ${most}`;
  throw new UnderstudyError('ERR_DEVICE_NOT_VOLUME', `${path} ${what}`, { path });
}

function admitOne(facts: VolumeFacts): void {
  const { path } = facts;
  switch (facts.kind) {
    case 'unreadable': {
      const { errno } = facts;
      throw new UnderstudyError('ERR_DEVICE_OPEN', `cannot open ${path}: ${errno}`, {
        path,
        errno,
      });
    }
    case 'directory': {
      const behind = facts.mountedFrom;
      const hint = behind === '' ? '' : `; the device behind it is ${behind}`;
      const message = `${path} is a folder, not a device${hint}`;
      throw new UnderstudyError('ERR_DEVICE_NOT_VOLUME', message, { path });
    }
    case 'other': {
      const message = `${path} is neither a block device nor a regular file`;
      throw new UnderstudyError('ERR_DEVICE_NOT_VOLUME', message, { path });
    }
    case 'block': {
      if (facts.block.multipath === '') return;
      const message = `${path} is one path of the multipath device ${facts.block.multipath}`;
      throw new UnderstudyError('ERR_TRACKER_REFUSED', message, { path });
    }
    case 'file':
      return;
  }
}

function admitPair(a: VolumeFacts, b: VolumeFacts): void {
  const why = overlapReason(a, b);
  if (why === '') return;
  const message = `${a.path} and ${b.path} overlap: ${why}`;
  throw new UnderstudyError('ERR_TRACKER_OVERLAP', message, { path: b.path });
}

function overlapReason(a: VolumeFacts, b: VolumeFacts): string {
  if (a.kind === 'file' && b.kind === 'file') {
    return a.identity === b.identity ? 'they are one file' : '';
  }
  if (a.kind === 'block' && b.kind === 'block') return blockOverlap(a.block, b.block);
  const [file, block] = a.kind === 'file' ? [a, b] : [b, a];
  const isBehind = block.kind === 'block' && block.block.backingFile === file.realPath;
  return isBehind ? 'a loop device and the file behind it' : '';
}

const numberOf = (block: BlockFacts): string => `${block.major}:${block.minor}`;
const diskOf = (block: BlockFacts): string => `${block.diskMajor}:${block.diskMinor}`;
const isWholeDisk = (block: BlockFacts): boolean => numberOf(block) === diskOf(block);
const isOn = (upper: BlockFacts, lower: BlockFacts): boolean =>
  upper.slaves.includes(lower.kernelName);

function blockOverlap(a: BlockFacts, b: BlockFacts): string {
  if (numberOf(a) === numberOf(b)) return 'they are one device';
  const hasDisk = isWholeDisk(a) || isWholeDisk(b);
  if (hasDisk && diskOf(a) === diskOf(b)) return 'a disk and its partition';
  return isOn(a, b) || isOn(b, a) ? 'one is stacked on the other' : '';
}
