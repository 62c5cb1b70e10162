/**
 * What lies on a device, from its first bytes: file systems by their superblocks, and what is none (swap,
 * LVM, LUKS, RAID). The formats: ext4 (kernel, ext4.h), XFS (xfs_format.h), btrfs (btrfs_tree.h), FAT,
 * swap (swap.h), LVM2's label, LUKS, md 1.x. Hostile input: nothing fails, nothing is believed but a name.
 * Pure.
 */

export interface Content {
  /** '' where it is nothing that is known. */
  readonly type: '' | 'ext4' | 'xfs' | 'btrfs' | 'vfat' | 'swap' | 'lvm' | 'luks' | 'raid';
  /** As in UUID=; lower case but FAT's. */
  readonly uuid: string;
  readonly label: string;
}

/** So much of a device is to be read. */
export const CONTENT_BYTES = 69_632;

const nothing: Content = { type: '', uuid: '', label: '' };
const BTRFS_AT = 65_536;
const LVM_SECTORS = 4;

export function contentOf(head: Uint8Array): Content {
  const bytes = Buffer.alloc(CONTENT_BYTES);
  bytes.set(head.subarray(0, CONTENT_BYTES));
  const has = (at: number, text: string) => bytes.toString('latin1', at, at + text.length) === text;
  const uuid = (at: number) => uuidText(bytes.subarray(at, at + 16));
  const label = (at: number, length: number) => labelText(bytes.subarray(at, at + length));
  if (bytes.readUInt16LE(1080) === 0xef53) {
    return { type: 'ext4', uuid: uuid(1128), label: label(1144, 16) };
  }
  if (has(0, 'XFSB')) return { type: 'xfs', uuid: uuid(32), label: label(108, 12) };
  if (has(BTRFS_AT + 64, '_BHRfS_M')) {
    return { type: 'btrfs', uuid: uuid(BTRFS_AT + 32), label: label(BTRFS_AT + 299, 256) };
  }
  if (has(0, 'LUKS\xba\xbe')) return { ...nothing, type: 'luks', uuid: label(168, 40) };
  for (let sector = 0; sector < LVM_SECTORS; sector += 1) {
    if (has(sector * 512, 'LABELONE')) return { ...nothing, type: 'lvm' };
  }
  if (has(4086, 'SWAPSPACE2')) {
    return { type: 'swap', uuid: uuid(1036), label: label(1052, 16) };
  }
  if (bytes.readUInt32LE(4096) === 0xa92b4efc || bytes.readUInt32LE(0) === 0xa92b4efc) {
    return { ...nothing, type: 'raid' };
  }
  if (has(82, 'FAT32   ')) return { type: 'vfat', uuid: fatId(bytes, 67), label: label(71, 11) };
  const isFat = has(54, 'FAT12   ') || has(54, 'FAT16   ');
  return isFat ? { type: 'vfat', uuid: fatId(bytes, 39), label: label(43, 11) } : nothing;
}

function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  const cuts = [0, 8, 12, 16, 20, 32];
  return cuts
    .slice(0, -1)
    .map((at, index) => hex.slice(at, cuts[index + 1]))
    .join('-');
}

function fatId(bytes: Buffer, at: number): string {
  const hex = bytes.readUInt32LE(at).toString(16).toUpperCase().padStart(8, '0');
  return `${hex.slice(0, 4)}-${hex.slice(4)}`;
}

function labelText(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  const text = bytes.toString('utf8', 0, end === -1 ? bytes.length : end).trimEnd();
  return [...text].every((char) => char >= ' ' && char !== '\u007f') ? text : '';
}
