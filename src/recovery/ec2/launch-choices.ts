/** What a launch chooses before it makes anything: the volume that boots, how it starts, the type. */
import { UnderstudyError } from '../../base/errors.ts';
import type { BlockImage } from './block-image.ts';
import { type BootMode, bootModeOfImage } from './boot-mode.ts';
import type { Ec2Calls } from './ec2-calls.ts';
import type { LaunchPlan } from './launch-plan.ts';
import { defaultFamilies, rightSize, whyNot } from './right-size.ts';

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
  plan: LaunchPlan,
  root: { readonly volume: string; readonly image: BlockImage },
): Promise<BootMode> {
  if (plan.bootMode !== 'auto') return plan.bootMode;
  const found = await bootModeOfImage(root.image, root.volume);
  return plan.architecture === 'arm64' ? 'uefi' : found;
}

/** By the plan, or by the rule; looked at before anything is made. ERR_EC2_INSTANCE_TYPE. */
export async function chooseType(
  ec2: Ec2Calls,
  plan: LaunchPlan,
  bootMode: BootMode,
): Promise<string> {
  const wanted = { architecture: plan.architecture, bootMode };
  if (plan.instanceType === null) {
    const families = plan.families ?? defaultFamilies[plan.architecture];
    return rightSize(await ec2.instanceTypes(families), plan.source!, wanted);
  }
  const type = await ec2.instanceType(plan.instanceType);
  const why = type === null ? 'this region does not offer it' : whyNot(type, wanted);
  if (why === null) return plan.instanceType;
  const message = `instance type ${plan.instanceType}: ${why}`;
  throw new UnderstudyError('ERR_EC2_INSTANCE_TYPE', message);
}
