/**
 * What a launch chooses before it makes anything: the plan filled in by what the agent told of its machine,
 * the volume that boots, how it starts, the type. Each choice says why.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { GIB } from '../../base/units.ts';
import type { MachineReport } from '../../model/machine.ts';
import type { BlockImage } from '../image-overlay.ts';
import { type BootMode, bootModeOfImage } from './boot-mode.ts';
import type { Ec2Catalog } from './ec2-catalog.ts';
import type { Architecture, LaunchPlan } from './launch-plan.ts';
import { defaultFamilies, knownTypes, rightSize, type Wanted, whyNot } from './right-size.ts';

/** A plan in which what the launch needs is told. */
export interface FittedPlan extends LaunchPlan {
  readonly architecture: Architecture;
  /** What was chosen for what the plan left open, and why: a line each. */
  readonly reasons: readonly string[];
}

/** What is of use of the agent's report. */
export type SourceMachine = Pick<
  MachineReport,
  'timeMs' | 'architecture' | 'cpuCount' | 'memoryBytes' | 'bootVolume'
>;

const architectures: Readonly<Record<string, Architecture>> = {
  x86_64: 'x86_64',
  aarch64: 'arm64',
};

/**
 * The plan, where it leaves things open, by the source machine. `volumes`: those of the point. ERR_EC2_PLAN
 * where the type is to be chosen and nobody knows the size of the source.
 */
export function fitPlan(
  plan: LaunchPlan,
  machine: SourceMachine | null,
  volumes: readonly string[],
): FittedPlan {
  const reasons: string[] = [];
  const told = machine === null ? '' : `as the agent told at ${timeOf(machine)}`;
  const known = machine === null ? undefined : architectures[machine.architecture];
  if (plan.architecture === null && known === 'arm64')
    reasons.push(`architecture ${known}: ${told}`);
  const boots = machine?.bootVolume ?? '';
  const isBootKnown = plan.rootVolume === null && volumes.includes(boots);
  if (isBootKnown && boots !== volumes[0]) reasons.push(`root volume ${boots}: ${told}`);
  let { source } = plan;
  if (plan.instanceType === null && source === null) {
    if (machine === null) {
      const message =
        'the plan: source is needed where instanceType is none, for the agent has not told of its ' +
        'machine: {"cpus": 4, "memoryGiB": 16}';
      throw new UnderstudyError('ERR_EC2_PLAN', message);
    }
    const memoryGiB = Math.round((machine.memoryBytes / GIB) * 10) / 10;
    source = { cpus: machine.cpuCount, memoryGiB };
    reasons.push(`${source.cpus} CPUs and ${memoryGiB} GiB: ${told}`);
  }
  return {
    ...plan,
    source,
    architecture: plan.architecture ?? known ?? 'x86_64',
    rootVolume: isBootKnown ? boots : plan.rootVolume,
    reasons,
  };
}

const timeOf = ({ timeMs }: SourceMachine): string => new Date(timeMs).toISOString();

/** The point's volumes, the one that boots first. ERR_EC2_PLAN where the plan names another one. */
export function rootFirst<T extends { volume: string }>(
  volumes: readonly T[],
  rootVolume: string | null,
): T[] {
  if (rootVolume === null) return [...volumes];
  const root = volumes.find(({ volume }) => volume === rootVolume);
  if (root !== undefined) return [root, ...volumes.filter((other) => other !== root)];
  const names = volumes.map(({ volume }) => volume).join(', ');
  const message = `rootVolume: the point has no volume ${rootVolume}; it has ${names}`;
  throw new UnderstudyError('ERR_EC2_PLAN', message);
}

/** By the plan, or by the disk itself; machines of ARM have no BIOS. */
export async function chooseBootMode(
  plan: FittedPlan,
  root: { readonly volume: string; readonly image: BlockImage },
): Promise<BootMode> {
  if (plan.bootMode !== 'auto') return plan.bootMode;
  const found = await bootModeOfImage(root.image, root.volume);
  return plan.architecture === 'arm64' ? 'uefi' : found;
}

export interface ChosenType {
  readonly name: string;
  readonly reason: string;
}

const wantedOf = ({ architecture }: FittedPlan, bootMode: BootMode): Wanted => ({
  architecture,
  bootMode,
});
const familiesOf = (plan: FittedPlan): readonly string[] =>
  plan.families ?? defaultFamilies[plan.architecture];

function ruleOf(plan: FittedPlan, bootMode: BootMode): string {
  const { cpus, memoryGiB } = plan.source!;
  const size = `${cpus} CPUs and ${memoryGiB} GiB`;
  return `the smallest of ${familiesOf(plan).join(', ')} with ${size}, ${plan.architecture}, ${bootMode}`;
}

const bad = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_EC2_INSTANCE_TYPE', message);

/** So many types by the rule are looked for in the zone: one question. */
const MOST_CANDIDATES = 50;

/**
 * By the plan, or by the rule, and offered where the subnet is; looked at before anything is made.
 * ERR_EC2_INSTANCE_TYPE; ERR_EC2_PLAN where there is no such subnet.
 */
export async function chooseType(
  catalog: Ec2Catalog,
  plan: FittedPlan,
  bootMode: BootMode,
): Promise<ChosenType> {
  const zone = plan.subnetId === null ? null : await zoneOf(catalog, plan.subnetId, plan.region);
  const wanted = wantedOf(plan, bootMode);
  if (plan.instanceType === null) {
    const all = rightSize(await catalog.instanceTypes(familiesOf(plan)), plan.source!, wanted);
    const name = await firstOffered(catalog, all.slice(0, MOST_CANDIDATES), zone);
    return { name, reason: ruleOf(plan, bootMode) };
  }
  const type = await catalog.instanceType(plan.instanceType);
  const why = type === null ? 'this region does not offer it' : whyNot(type, wanted);
  if (why !== null) throw bad(`instance type ${plan.instanceType}: ${why}`);
  await firstOffered(catalog, [plan.instanceType], zone);
  return { name: plan.instanceType, reason: 'the plan names it' };
}

/** The same by what is known of the families, asking nobody; null where it is not known. */
export function expectedType(plan: FittedPlan, bootMode: BootMode): ChosenType | null {
  if (plan.instanceType !== null) return { name: plan.instanceType, reason: 'the plan names it' };
  const types = knownTypes(familiesOf(plan));
  if (types === null) return null;
  const [name] = rightSize(types, plan.source!, wantedOf(plan, bootMode));
  return { name, reason: `${ruleOf(plan, bootMode)}; the launch asks EC2` };
}

async function zoneOf(catalog: Ec2Catalog, subnet: string, region: string | null): Promise<string> {
  const zone = await catalog.zoneOf(subnet);
  if (zone !== null) return zone;
  const where = region ?? 'the region of the environment or profile';
  const message = `the plan: subnetId ${subnet}: ${where} has none of that id; another region or account?`;
  throw new UnderstudyError('ERR_EC2_PLAN', message);
}

async function firstOffered(
  catalog: Ec2Catalog,
  types: readonly string[],
  zone: string | null,
): Promise<string> {
  if (zone === null) return types[0]!;
  const zones = await catalog.zonesOf(types);
  const found = types.find((type) => zones.get(type)?.includes(zone) === true);
  if (found !== undefined) return found;
  const others = [...new Set([...zones.values()].flat())].sort().join(', ');
  const instead = others === '' ? '' : `; ${others} offer it`;
  throw bad(`instance type ${types[0]}: zone ${zone} of the subnet does not offer it${instead}`);
}
