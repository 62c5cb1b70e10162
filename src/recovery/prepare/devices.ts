/**
 * The block devices in the preparation's virtual machine, what lies on each, and which of them a name in
 * the disk's own files means. Names of the machine's hardware (sda2) are translated by the names under
 * which its volumes are replicated, or, where only one disk is there, by the number of the partition.
 */
import { partitionName } from '../../model/partition-table.ts';
import { type Content, contentOf } from './file-system.ts';

export interface Device {
  /** In the virtual machine: "vda2", "dm-0". */
  readonly name: string;
  readonly sizeBytes: number;
  /** Of its disk; 0: no partition. */
  readonly partition: number;
  /** Index of the volume in the point; null for what lies over several (dm). */
  readonly volume: number | null;
  /** Of device mapper: "vg0-root"; else ''. */
  readonly mapped: string;
  readonly content: Content;
  /** Of a partition, as in PARTUUID= and PARTLABEL=; '' where they cannot be told. */
  readonly partUuid: string;
  readonly partLabel: string;
}

/** What the machine itself tells. */
export type BareDevice = Pick<Device, 'name' | 'sizeBytes' | 'partition' | 'volume' | 'mapped'>;

const MAX_DEVICES = 512;
const line = /^([a-z0-9-]{1,32})\|(\d{1,15})\|(\d{1,4})\|([a-z0-9-]{1,32})\|([^|]*)\|([^|]*)$/;

/** What the machine tells of its devices, without their contents. Lines of no sense are passed over. */
export function parseDevices(text: string): BareDevice[] {
  const rows = text.split('\n').flatMap((each) => {
    const found = line.exec(each);
    return found === null ? [] : [found as unknown as string[]];
  });
  const volumeOf = new Map(
    rows.map(([, name = '', , , , serial = '']) => {
      const index = /^volume(\d{1,3})$/.exec(serial.trim())?.[1];
      return [name, index === undefined ? null : Number(index)];
    }),
  );
  return rows
    .slice(0, MAX_DEVICES)
    .map(([, name = '', sectors, number, parent = '', , mapped]) => ({
      name,
      sizeBytes: Number(sectors) * 512,
      partition: Number(number),
      volume: volumeOf.get(Number(number) > 0 ? parent : name) ?? null,
      mapped: (mapped ?? '').trim(),
    }));
}

/** `heads`: the first bytes of each, in the same order. */
export function withContents(
  devices: readonly BareDevice[],
  heads: readonly Uint8Array[],
): Device[] {
  return devices.map((device, index) => {
    const { volume, partition } = device;
    const isDisk = (each: BareDevice) => each.volume === volume && each.partition === 0;
    const disk = volume === null || partition === 0 ? -1 : devices.findIndex(isDisk);
    const name = disk === -1 ? null : partitionName(heads[disk]!, partition);
    const { uuid: partUuid, label: partLabel } = name ?? { uuid: '', label: '' };
    return { ...device, content: contentOf(heads[index]!), partUuid, partLabel };
  });
}

export interface Disks {
  readonly devices: readonly Device[];
  /** Names of the volumes in the point, by index: "/dev/sda", "sda", "root-disk". */
  readonly volumes: readonly string[];
}

/** A whole disk and a partition: sda2, vda1, xvda, nvme0n1p3, mmcblk0p1. */
const hardware =
  /^\/dev\/((?:sd|vd|xvd|hd)[a-z]{1,3}|(?:nvme\d+n\d+|mmcblk\d+)(?=p?\d*$))(?:p?(\d+))?$/;

/** Changes with the hardware: a name of a disk, or a path to it. */
export const isHardwareSpec = (spec: string): boolean =>
  hardware.test(spec) || /^\/dev\/disk\/by-(?:path|id)\//.test(spec);

/**
 * The device that `spec` of an fstab or a kernel's command line means. Undefined: none that is here. Null:
 * it cannot be told. PARTUUID and PARTLABEL travel with the partition table.
 */
export function deviceOfSpec(spec: string, disks: Disks): Device | undefined | null {
  const { devices } = disks;
  const tagged = /^(UUID|LABEL|PARTUUID|PARTLABEL|ID)=["']?(.*?)["']?$/.exec(spec);
  const linked = /^\/dev\/disk\/by-(uuid|label|partuuid|partlabel)\/(.+)$/.exec(spec);
  const tag = tagged?.[1] ?? linked?.[1]?.toUpperCase();
  const value = tagged?.[2] ?? linked?.[2] ?? '';
  if (tag === 'UUID') {
    return devices.find(({ content }) => content.uuid.toLowerCase() === value.toLowerCase());
  }
  if (tag === 'LABEL') return devices.find(({ content }) => content.label === value);
  if (tag === 'PARTUUID' || tag === 'PARTLABEL') return deviceOfPart(tag, value, devices);
  if (tag !== undefined) return null;
  const found = hardware.exec(spec);
  if (found !== null) return deviceOfName(found[1]!, Number(found[2] ?? 0), disks);
  if (/^\/dev\/disk\/by-(?:path|id)\//.test(spec)) return deviceOfPath(spec, disks);
  return spec.startsWith('/dev/') ? mappedDevice(spec.slice(5), devices) : null;
}

/** Where no table could be read, or the value says more (PARTNROFF), nobody knows. */
function deviceOfPart(tag: 'PARTUUID' | 'PARTLABEL', value: string, devices: readonly Device[]) {
  const areKnown = devices.some(({ partUuid }) => partUuid !== '');
  if (!areKnown || value.includes('/')) return null;
  return tag === 'PARTLABEL'
    ? devices.find(({ partLabel }) => partLabel !== '' && partLabel === value)
    : devices.find(({ partUuid }) => partUuid !== '' && partUuid === value.toLowerCase());
}

function deviceOfName(disk: string, partition: number, { devices, volumes }: Disks) {
  const named = volumes.findIndex((volume) => volume.replace(/^\/dev\//, '') === disk);
  const isNamed = volumes.some((volume) => hardware.test(`/dev/${volume.replace(/^\/dev\//, '')}`));
  // One volume, and a name that says nothing of hardware: it is the first disk.
  const isFirst = !isNamed && volumes.length === 1 && /(?:a|nvme0n1|mmcblk0)$/.test(disk);
  const volume = named !== -1 ? named : isFirst ? 0 : null;
  if (volume === null) return undefined;
  return devices.find((each) => each.volume === volume && each.partition === partition);
}

/** "...-part2": where there is one disk alone it can be no other. */
function deviceOfPath(spec: string, { devices, volumes }: Disks): Device | undefined {
  const partition = Number(/-part(\d+)$/.exec(spec)?.[1] ?? 0);
  if (volumes.length !== 1) return undefined;
  return devices.find((each) => each.volume === 0 && each.partition === partition);
}

/** /dev/mapper/vg0-root and /dev/vg0/root; a "-" in a name is doubled in the first. */
function mappedDevice(path: string, devices: readonly Device[]): Device | undefined | null {
  const direct = /^mapper\/(.+)$/.exec(path)?.[1];
  const parts = path.split('/');
  const name =
    direct ?? (parts.length === 2 ? parts.map((part) => part.replaceAll('-', '--')).join('-') : '');
  if (name === '') return null;
  return devices.find(({ mapped }) => mapped === name) ?? null;
}
