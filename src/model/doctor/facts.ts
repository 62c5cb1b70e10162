/**
 * What the doctor has to know of a machine, gathered by the agent (`agent/doctor/`) and judged by the
 * files beside this one. Devices are named as the kernel names them (`vda1`, `dm-0`). Data only.
 */
import type { BootMode } from '../machine.ts';

export type DeviceKind =
  | 'disk'
  | 'partition'
  | 'lvm'
  | 'crypt'
  | 'raid'
  | 'multipath'
  | 'mapped'
  | 'loop'
  | 'memory'
  | 'optical';

export interface DeviceFacts {
  readonly name: string;
  readonly kind: DeviceKind;
  /** The whole disk: the device itself where it is no partition. */
  readonly disk: string;
  readonly sizeBytes: number;
  /** Logical. */
  readonly sectorBytes: number;
  /** What it is made of, where it is stacked. */
  readonly slaves: readonly string[];
}

export interface TableFacts {
  readonly disk: string;
  readonly kind: 'gpt' | 'mbr' | 'none' | 'unreadable';
  /** Something lies where a BIOS begins to run. */
  readonly hasBootCode: boolean;
  /** GUIDs in lower case, or for MBR two hex digits. */
  readonly types: readonly string[];
}

export interface MountFacts {
  readonly target: string;
  readonly source: string;
  readonly type: string;
  /** Devices that hold it; empty where it has none. */
  readonly devices: readonly string[];
}

export interface FstabEntry {
  readonly spec: string;
  readonly target: string;
  readonly type: string;
  readonly options: readonly string[];
  /** What `spec` is on this machine now; '' where there is none. */
  readonly device: string;
}

export interface CrypttabEntry {
  readonly name: string;
  readonly spec: string;
  readonly key: string;
  readonly options: readonly string[];
}

export interface TextFile {
  readonly path: string;
  readonly text: string;
}

export interface KernelFacts {
  /** As in /lib/modules. */
  readonly release: string;
  readonly isRunning: boolean;
  /** Where the kernel itself lies; '' for a running one that is not found. */
  readonly path: string;
  /** Modules on the root file system and those that are built in; `-` is written `_`. */
  readonly modules: ReadonlySet<string>;
  readonly builtIn: ReadonlySet<string>;
  readonly initramfs: InitramfsFacts;
}

export interface InitramfsFacts {
  readonly state: 'read' | 'missing' | 'unreadable';
  readonly path: string;
  /** Why it could not be read. */
  readonly detail: string;
  readonly sizeBytes: number;
  readonly modules: ReadonlySet<string>;
  /** Names of programs in it: lvm, cryptsetup, mdadm. */
  readonly programs: ReadonlySet<string>;
}

export interface VolumeToldFacts {
  /** As given to the agent. */
  readonly path: string;
  /** '' where it is no block device. */
  readonly device: string;
  /** Why the agent would not take it; '' where it does. */
  readonly refusal: string;
  /** Why the bpf tracker would not follow it; '' where it does. */
  readonly trackerRefusal: string;
}

export interface MachineFacts {
  readonly timeMs: number;
  readonly architecture: string;
  readonly kernel: string;
  readonly system: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly bootMode: BootMode;
  /** null where the firmware does not say. */
  readonly isSecureBoot: boolean | null;
  readonly commandLine: string;
  readonly hasBtf: boolean;
  readonly devices: readonly DeviceFacts[];
  readonly tables: readonly TableFacts[];
  readonly mounts: readonly MountFacts[];
  /** Devices that are swapped to. */
  readonly swaps: readonly string[];
  readonly fstab: readonly FstabEntry[];
  readonly crypttab: readonly CrypttabEntry[];
  /** What the running kernel can mount now. */
  readonly fileSystems: readonly string[];
  /** GRUB's configuration, boot loader entries, the environment of GRUB. */
  readonly loader: readonly TextFile[];
  /** Whether the ESP has the loader that a firmware without entries starts; null: it could not be seen. */
  readonly hasFallbackLoader: boolean | null;
  readonly kernels: readonly KernelFacts[];
  /** How an initramfs is made: initramfs-tools, dracut. */
  readonly initramfsConfig: readonly TextFile[];
  readonly network: readonly TextFile[];
  readonly hasCloudInit: boolean;
  readonly lvm: readonly TextFile[];
  /** In the file system of /boot; null where it could not be asked. */
  readonly bootFreeBytes: number | null;
  /** Where the agent's program lies: devices beneath. */
  readonly agentDevices: readonly string[];
  /** null: nobody told which volumes are replicated. */
  readonly volumes: readonly VolumeToldFacts[] | null;
}
