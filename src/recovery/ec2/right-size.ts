/**
 * The instance type for a source server: the smallest of some families that has its CPUs and its memory, runs
 * its architecture and can start its disk. Pure: the table of types comes from DescribeInstanceTypes.
 */
import type { InstanceTypeInfo } from '@aws-sdk/client-ec2';
import { UnderstudyError } from '../../base/errors.ts';
import type { BootMode } from './boot-mode.ts';

export interface SourceSize {
  readonly cpus: number;
  readonly memoryGiB: number;
}

export interface Wanted {
  readonly architecture: 'x86_64' | 'arm64';
  readonly bootMode: BootMode;
}

/** General, compute and memory: what fits closest is taken. */
export const defaultFamilies: Readonly<Record<Wanted['architecture'], readonly string[]>> = {
  x86_64: ['m6i', 'c6i', 'r6i'],
  arm64: ['m7g', 'c7g', 'r7g'],
};

/** A machine of 8 GiB says that it has 7.7: the kernel keeps some. */
const MEMORY_TOLERANCE = 0.94;

/** All that are large enough, the best one first. ERR_EC2_INSTANCE_TYPE where none is. */
export function rightSize(
  types: readonly InstanceTypeInfo[],
  source: SourceSize,
  wanted: Wanted,
): [string, ...string[]] {
  const fitting = types.filter(
    (type) =>
      whyNot(type, wanted) === null &&
      cpusOf(type) >= source.cpus &&
      memoryGiBOf(type) >= source.memoryGiB * MEMORY_TOLERANCE,
  );
  const sorted = fitting.sort(
    (a, b) =>
      cpusOf(a) - cpusOf(b) ||
      memoryGiBOf(a) - memoryGiBOf(b) ||
      // The same size in two families: always the same one.
      `${a.InstanceType}`.localeCompare(`${b.InstanceType}`),
  );
  const [best, ...others] = sorted.map((type) => type.InstanceType!);
  if (best !== undefined) return [best, ...others];
  const message =
    `no instance type of ${types.length} looked at has ${source.cpus} CPUs and ` +
    `${source.memoryGiB} GiB and runs ${wanted.architecture} by ${wanted.bootMode}`;
  throw new UnderstudyError('ERR_EC2_INSTANCE_TYPE', message);
}

const sizes = [1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192];
const nameOfSize = (cpus: number): string =>
  ({ 1: 'medium', 2: 'large', 4: 'xlarge' })[cpus] ?? `${cpus / 4}xlarge`;
const gibPerCpu: Readonly<Record<string, number>> = { c: 2, m: 4, r: 8 };
const largest: Readonly<Record<string, number>> = { m6i: 128, c6i: 128, r6i: 128 };

/**
 * The sizes of the general, compute and memory families as AWS lists them, for a dry run that asks nobody;
 * null where a family is not known. A launch asks EC2.
 */
export function knownTypes(families: readonly string[]): InstanceTypeInfo[] | null {
  const types: InstanceTypeInfo[] = [];
  for (const family of families) {
    const isArm = /^[cmr]7g$/.test(family);
    const most = largest[family] ?? (isArm ? 64 : null);
    if (most === null) return null;
    for (const cpus of sizes.filter((size) => size <= most && size >= (isArm ? 1 : 2))) {
      types.push({
        InstanceType: `${family}.${nameOfSize(cpus)}` as NonNullable<
          InstanceTypeInfo['InstanceType']
        >,
        VCpuInfo: { DefaultVCpus: cpus },
        MemoryInfo: { SizeInMiB: cpus * gibPerCpu[family[0]!]! * 1024 },
        ProcessorInfo: { SupportedArchitectures: [isArm ? 'arm64' : 'x86_64'] },
        SupportedBootModes: isArm ? ['uefi'] : ['legacy-bios', 'uefi'],
      });
    }
  }
  return types;
}

/** Why a type cannot run the disk; null where it can. */
export function whyNot(type: InstanceTypeInfo, wanted: Wanted): string | null {
  const architectures = type.ProcessorInfo?.SupportedArchitectures as string[] | undefined;
  if (architectures !== undefined && !architectures.includes(wanted.architecture)) {
    return `it runs ${architectures.join(', ')}, not ${wanted.architecture}`;
  }
  const modes = type.SupportedBootModes as string[] | undefined;
  if (modes === undefined || modes.length === 0) return null;
  const needed = wanted.bootMode === 'uefi-preferred' ? ['uefi', 'legacy-bios'] : [wanted.bootMode];
  if (needed.some((mode) => modes.includes(mode))) return null;
  return `it starts by ${modes.join(', ')}, not by ${wanted.bootMode}`;
}

const cpusOf = (type: InstanceTypeInfo): number => type.VCpuInfo?.DefaultVCpus ?? 0;
const memoryGiBOf = (type: InstanceTypeInfo): number => (type.MemoryInfo?.SizeInMiB ?? 0) / 1024;
