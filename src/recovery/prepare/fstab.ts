/**
 * /etc/fstab made to fit another machine: entries that name hardware get the UUID of what they mean; entries
 * for what is not here get "nofail", so that the boot does not wait for them and then give up. Lines that
 * are left alone stay byte for byte. Pure.
 */
import { type Device, type Disks, deviceOfSpec, isHardwareSpec } from './devices.ts';
import type { Note } from './report.ts';

export interface Rewritten {
  readonly text: string;
  readonly notes: readonly Note[];
}

export interface FstabEntry {
  readonly spec: string;
  readonly target: string;
  readonly type: string;
  readonly options: readonly string[];
}

const fields = /^(\s*)(\S+)(\s+)(\S+)(\s+)(\S+)(?:(\s+)(\S+))?(.*)$/;
const REMOTE = /^(?:nfs4?|cifs|smb3|ceph|glusterfs|fuse\.sshfs|9p|virtiofs)$/;

const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

export function parseFstab(text: string): FstabEntry[] {
  return text.split('\n').flatMap((line) => {
    const found = line.trim().startsWith('#') ? null : fields.exec(line);
    if (found === null) return [];
    const [, , spec = '', , target = '', , type = '', , options = 'defaults'] = found;
    return [
      { spec: unescaped(spec), target: unescaped(target), type, options: options.split(',') },
    ];
  });
}

/** `root`: what was found to hold the root file system; its entry means that whatever it says. */
export function rewriteFstab(text: string, disks: Disks, root: Device): Rewritten {
  const notes: Note[] = [];
  const lines = text.split('\n').map((line) => {
    if (line.trim() === '' || line.trim().startsWith('#')) return line;
    const [entry] = parseFstab(line);
    if (entry === undefined) return line;
    const change = changeOf(entry, disks, root);
    if (change === null) return line;
    notes.push(note(change.isWarning ? 'warning' : 'changed', change.text));
    return changedLine(line, change);
  });
  return { text: lines.join('\n'), notes };
}

const note = (kind: Note['kind'], text: string): Note => ({
  ...{ kind, about: 'fstab', path: '/etc/fstab', text },
});

interface Change {
  readonly spec?: string;
  readonly options?: readonly string[];
  readonly text: string;
  readonly isWarning?: boolean;
}

function changeOf(entry: FstabEntry, disks: Disks, root: Device): Change | null {
  const { spec, target, type, options } = entry;
  const isDevice = /^(?:\/dev\/|UUID=|LABEL=|PARTUUID=|PARTLABEL=|ID=)/.test(spec);
  if (!isDevice || REMOTE.test(type)) return null;
  const found = deviceOfSpec(spec, disks);
  if (found === null && !isHardwareSpec(spec)) return null;
  if (target === '/') return rootChange(spec, found, root);
  if (found === undefined && !isHardwareSpec(spec) && mayBeHidden(type, disks)) {
    const where = 'may lie where was not looked';
    return { text: `${spec} (${target}) ${where}: left as it is`, isWarning: true };
  }
  if (found === undefined || found === null) return absentChange(spec, target, options);
  if (!isHardwareSpec(spec)) return null;
  // Another disk under that name: of its partitions one has this number.
  if (!isOfType(found, type)) return absentChange(spec, target, options);
  const uuid = uuidSpec(found);
  if (uuid === null) {
    return {
      ...nofail(options),
      text: `${spec} (${target}) has no UUID to name it by`,
      isWarning: true,
    };
  }
  return { spec: uuid, text: `${spec} (${target}) is ${uuid}` };
}

/** Those that file-system.ts knows by their UUIDs. */
const knownTypes = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'vfat',
  'msdos',
  'swap',
  'auto',
]);

/**
 * Whether a UUID or label that was not found may be there all the same. With "nofail" services would not wait
 * for its mount, and begin anew in the empty folder.
 */
function mayBeHidden(type: string, { devices }: Disks): boolean {
  const holds = (what: string) => devices.some(({ content }) => content.type === what);
  const hasLvmOpen = devices.some(({ mapped }) => mapped !== '');
  const isShut = holds('luks') || holds('raid') || (holds('lvm') && !hasLvmOpen);
  return isShut || !knownTypes.has(type);
}

const sameTypes: Readonly<Record<string, string>> = { ext2: 'ext4', ext3: 'ext4', msdos: 'vfat' };
const isOfType = ({ content }: Device, type: string): boolean =>
  type === 'auto' || content.type === '' || content.type === (sameTypes[type] ?? type);

function rootChange(spec: string, found: Device | undefined | null, root: Device): Change | null {
  if (found === root && !isHardwareSpec(spec)) return null;
  const uuid = uuidSpec(root);
  if (uuid === null || uuid === spec) return null;
  return { spec: uuid, text: `${spec} (/) is ${uuid}` };
}

function absentChange(spec: string, target: string, options: readonly string[]): Change | null {
  if (options.includes('nofail') || options.includes('noauto')) return null;
  return { ...nofail(options), text: `${spec} (${target}) is not here: nofail`, isWarning: true };
}

const nofail = (options: readonly string[]) =>
  options.includes('nofail') || options.includes('noauto')
    ? { options }
    : {
        options: [...options.filter((each) => each !== 'defaults' || options.length > 1), 'nofail'],
      };

export const uuidSpec = ({ content }: Device): string | null =>
  content.uuid === '' || !/^[0-9A-Za-z-]+$/.test(content.uuid) ? null : `UUID=${content.uuid}`;

function changedLine(line: string, { spec, options }: Change): string {
  const [, indent = '', oldSpec = '', a = '', target = '', b = '', type = '', c = ' ', old, rest] =
    fields.exec(line)!;
  const words = options?.join(',') ?? old ?? 'defaults';
  return `${indent}${spec ?? oldSpec}${a}${target}${b}${type}${c}${words}${rest ?? ''}`;
}
