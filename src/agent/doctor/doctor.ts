/**
 * The doctor on the machine itself: gathers the facts, with the agent's and the tracker's own opinion of
 * each volume, and has them judged. Takes a second or two, most of it for the initramfs.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { examine } from '../../model/doctor/examine.ts';
import type { MachineReport } from '../../model/machine.ts';
import { machineSysfs, refusalReason } from '../../native/index.ts';
import { admit } from '../admission.ts';
import { volumeFacts } from '../volume-facts.ts';
import { gatherFacts } from './gather.ts';

export interface DoctorOptions {
  readonly timeMs: number;
  /** As given to the agent; null: nobody told. */
  readonly volumes: readonly string[] | null;
}

export async function runDoctor({ timeMs, volumes }: DoctorOptions): Promise<MachineReport> {
  const program = process.argv[1] ?? process.execPath;
  return examine(await gatherFacts({ timeMs, volumes, program, refusalOf }));
}

function refusalOf(path: string): { refusal: string; trackerRefusal: string } {
  const facts = volumeFacts(path);
  const fine = { refusal: '', trackerRefusal: '' };
  try {
    admit([facts]);
  } catch (error) {
    if (error instanceof UnderstudyError) return { ...fine, refusal: error.message };
    throw error;
  }
  if (facts.kind !== 'block') return fine;
  const { diskMajor, diskMinor } = facts.block;
  const geometry = { kind: 'disk', diskMajor, diskMinor } as const;
  return { ...fine, trackerRefusal: refusalReason({ path, geometry }, machineSysfs) ?? '' };
}
