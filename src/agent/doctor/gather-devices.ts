/** Block devices, what is mounted on them, and what /etc/fstab and /etc/crypttab say, as facts. */
import type {
  CrypttabEntry,
  DeviceFacts,
  DeviceKind,
  FstabEntry,
  MountFacts,
  TableFacts,
} from '../../model/doctor/facts.ts';
import { readPartitionTable, TABLE_BYTES } from '../../model/partition-table.ts';
import type { Tree } from './tree.ts';

const SECTOR_BYTES = 512;

export interface Devices {
  readonly all: readonly DeviceFacts[];
  /** Kernel's name by device number, "8:1". */
  readonly byNumber: ReadonlyMap<string, string>;
}

export async function gatherDevices(tree: Tree): Promise<Devices> {
  const all: DeviceFacts[] = [];
  const byNumber = new Map<string, string>();
  for (const disk of await tree.list('/sys/block')) {
    const folder = `/sys/block/${disk}`;
    const sizeBytes = SECTOR_BYTES * Number(await tree.text(`${folder}/size`));
    if (!(sizeBytes > 0)) continue;
    const sector = Number(await tree.text(`${folder}/queue/logical_block_size`));
    const sectorBytes = sector > 0 ? sector : SECTOR_BYTES;
    const slaves = await tree.list(`${folder}/slaves`);
    const kind = await kindOf(tree, disk);
    all.push({ name: disk, kind, disk, sizeBytes, sectorBytes, slaves });
    byNumber.set(await tree.text(`${folder}/dev`), disk);
    for (const name of await tree.list(folder)) {
      if ((await tree.text(`${folder}/${name}/partition`)) === '') continue;
      const bytes = SECTOR_BYTES * Number(await tree.text(`${folder}/${name}/size`));
      all.push({ name, kind: 'partition', disk, sizeBytes: bytes, sectorBytes, slaves: [] });
      byNumber.set(await tree.text(`${folder}/${name}/dev`), name);
    }
  }
  return { all, byNumber };
}

const kindsByName: readonly [RegExp, DeviceKind][] = [
  [/^loop\d/, 'loop'],
  [/^(?:ram|zram)\d/, 'memory'],
  [/^(?:sr|fd)\d/, 'optical'],
  [/^md/, 'raid'],
];
const kindsByMapping: readonly [RegExp, DeviceKind][] = [
  [/^LVM-/, 'lvm'],
  [/^CRYPT-/, 'crypt'],
  [/^mpath-/, 'multipath'],
];

async function kindOf(tree: Tree, name: string): Promise<DeviceKind> {
  const known = kindsByName.find(([pattern]) => pattern.test(name));
  if (known !== undefined) return known[1];
  if (!name.startsWith('dm-')) return 'disk';
  const id = await tree.text(`/sys/block/${name}/dm/uuid`);
  // A partition of a multipath device: part1-mpath-...
  return kindsByMapping.find(([pattern]) => pattern.test(id))?.[1] ?? 'mapped';
}

export async function gatherTables(
  tree: Tree,
  devices: readonly DeviceFacts[],
): Promise<TableFacts[]> {
  const tables: TableFacts[] = [];
  for (const { name, kind, sectorBytes } of devices) {
    if (kind !== 'disk') continue;
    // The kernel writes "!" where a name has a slash.
    const head = await tree.head(`/dev/${name.replaceAll('!', '/')}`, TABLE_BYTES);
    tables.push(tableFacts(name, head, sectorBytes));
  }
  return tables;
}

function tableFacts(disk: string, head: Uint8Array | null, sectorBytes: number): TableFacts {
  if (head === null) return { disk, kind: 'unreadable', hasBootCode: false, types: [] };
  const { kind, hasBootCode, types } = readPartitionTable(head, sectorBytes);
  return { disk, kind, hasBootCode, types };
}

const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

/** Of the machine's first process: the agent's own view may be narrowed by its service manager. */
export async function gatherMounts(tree: Tree, devices: Devices): Promise<MountFacts[]> {
  const text = (await tree.text('/proc/1/mountinfo')) || (await tree.text('/proc/self/mountinfo'));
  const mounts: MountFacts[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    const [number = '', type = '', source = ''] = [fields[2], fields[dash + 1], fields[dash + 2]];
    if (dash === -1) continue;
    const own = devices.byNumber.get(number);
    const target = unescaped(fields[4]!);
    const all = own === undefined ? await devicesOf(tree, devices, type, unescaped(source)) : [own];
    mounts.push({ target, source: unescaped(source), type, devices: all });
  }
  return mounts;
}

/** btrfs has device numbers of its own, and may lie on several devices. */
async function devicesOf(
  tree: Tree,
  devices: Devices,
  type: string,
  source: string,
): Promise<string[]> {
  if (!source.startsWith('/dev/')) return [];
  const name = await deviceNameOf(tree, devices, source);
  if (name === '' || type !== 'btrfs') return name === '' ? [] : [name];
  for (const id of await tree.list('/sys/fs/btrfs')) {
    const members = await tree.list(`/sys/fs/btrfs/${id}/devices`);
    if (members.includes(name)) return members;
  }
  return [name];
}

async function deviceNameOf(tree: Tree, devices: Devices, path: string): Promise<string> {
  const resolved = await tree.resolve(path);
  const name = resolved.replace(/^\/dev\//, '').replaceAll('/', '!');
  return devices.all.some((device) => device.name === name) ? name : '';
}

export async function gatherSwaps(tree: Tree, devices: Devices): Promise<string[]> {
  const rows = (await tree.text('/proc/swaps')).split('\n').slice(1);
  const names: string[] = [];
  for (const row of rows) {
    const [path = '', type] = row.split(/\s+/);
    const name = type === 'partition' ? await deviceNameOf(tree, devices, unescaped(path)) : '';
    if (name !== '') names.push(name);
  }
  return names;
}

const byTag: Record<string, string> = {
  UUID: 'by-uuid',
  LABEL: 'by-label',
  PARTUUID: 'by-partuuid',
  PARTLABEL: 'by-partlabel',
  ID: 'by-id',
};

/** Lines of fields, without comments. */
const rowsOf = (text: string): string[][] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(/\s+/));

export async function gatherFstab(
  tree: Tree,
  devices: Devices,
  mounts: readonly MountFacts[],
): Promise<FstabEntry[]> {
  const entries: FstabEntry[] = [];
  for (const [spec = '', target = '', type = 'auto', options = ''] of rowsOf(
    await tree.text('/etc/fstab'),
  )) {
    const at = unescaped(target);
    // Where nobody keeps links by UUID (containers, small systems), what is mounted there tells.
    const mounted = mounts.findLast((mount) => mount.target === at)?.devices[0];
    const device = mounted ?? (await deviceOfSpec(tree, devices, unescaped(spec)));
    const all = options.split(',').filter(Boolean);
    entries.push({ spec: unescaped(spec), target: at, type, options: all, device });
  }
  return entries;
}

async function deviceOfSpec(tree: Tree, devices: Devices, spec: string): Promise<string> {
  const tagged = /^([A-Z]+)=["']?([^"']*)["']?$/.exec(spec);
  if (tagged === null) {
    return spec.startsWith('/dev/') ? deviceNameOf(tree, devices, spec) : '';
  }
  const [, tag = '', value = ''] = tagged;
  const folder = byTag[tag];
  if (folder === undefined) return '';
  // udev writes what is no plain character as \x20.
  const name = value.replace(
    /[^\w#+\-.:=@]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
  return deviceNameOf(tree, devices, `/dev/disk/${folder}/${name}`);
}

export async function gatherCrypttab(tree: Tree): Promise<CrypttabEntry[]> {
  return rowsOf(await tree.text('/etc/crypttab')).map(
    ([name = '', spec = '', key = '', options = '']) => ({
      ...{ name, spec, key },
      options: options.split(',').filter(Boolean),
    }),
  );
}
