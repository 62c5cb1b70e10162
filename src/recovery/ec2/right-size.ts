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

/** ERR_EC2_INSTANCE_TYPE where none is large enough. */
export function rightSize(
  types: readonly InstanceTypeInfo[],
  source: SourceSize,
  wanted: Wanted,
): string {
  const fitting = types.filter(
    (type) =>
      whyNot(type, wanted) === null &&
      cpusOf(type) >= source.cpus &&
      memoryGiBOf(type) >= source.memoryGiB * MEMORY_TOLERANCE,
  );
  const [best] = fitting.sort(
    (a, b) =>
      cpusOf(a) - cpusOf(b) ||
      memoryGiBOf(a) - memoryGiBOf(b) ||
      // The same size in two families: always the same one.
      `${a.InstanceType}`.localeCompare(`${b.InstanceType}`),
  );
  if (best !== undefined) return best.InstanceType!;
  const message =
    `no instance type of ${types.length} looked at has ${source.cpus} CPUs and ` +
    `${source.memoryGiB} GiB and runs ${wanted.architecture} by ${wanted.bootMode}`;
  throw new UnderstudyError('ERR_EC2_INSTANCE_TYPE', message);
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
