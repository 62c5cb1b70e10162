/**
 * The doctor's judgement: from the facts of a machine to a report. Every judge looks at the same facts and
 * knows nothing of the others. Pure; the facts are gathered by the agent.
 */
import { type Finding, type MachineReport, severities } from '../machine.ts';
import { judgeBoot } from './boot.ts';
import { found } from './catalogue.ts';
import { beneath, deviceOf, disksBeneath, mountAt, notReplicated } from './devices.ts';
import { judgeDrivers } from './drivers.ts';
import type { MachineFacts } from './facts.ts';
import { judgeCrypt, judgeFstab, judgeLvm } from './mounts.ts';
import { judgeNetwork } from './network.ts';
import { judgeStorage } from './storage.ts';

const judges: readonly ((facts: MachineFacts) => Finding[])[] = [
  judgeStorage,
  judgeBoot,
  judgeDrivers,
  judgeFstab,
  judgeCrypt,
  judgeLvm,
  judgeNetwork,
  judgeMachine,
];

export function examine(facts: MachineFacts): MachineReport {
  const findings = judges.flatMap((judge) => judge(facts));
  const rank = ({ severity }: Finding) => severities.indexOf(severity);
  const { timeMs, architecture, kernel, system, bootMode, cpuCount, memoryBytes } = facts;
  return {
    ...{ timeMs, architecture, kernel, system, bootMode, cpuCount, memoryBytes },
    bootVolume: bootVolumeOf(facts),
    findings: findings.toSorted((a, b) => rank(a) - rank(b)),
  };
}

function bootVolumeOf(facts: MachineFacts): string {
  const disks = disksBeneath(facts, mountAt(facts, '/')?.devices ?? []);
  const volume = facts.volumes?.find(({ device }) => disks.includes(device));
  return volume?.path ?? '';
}

/** As for the tracker: the first kernel whose programs it can load. */
const TRACKER_KERNEL: readonly [number, number] = [5, 17];

function judgeMachine(facts: MachineFacts): Finding[] {
  const findings: Finding[] = [];
  const { architecture, kernel, hasBtf } = facts;
  if (!/^(?:x86_64|aarch64)$/.test(architecture)) {
    findings.push(found('architecture', '', `this is ${architecture}`));
  }
  const [major = 0, minor = 0] = kernel.split('.').map((part) => Number.parseInt(part, 10));
  const isNew =
    major > TRACKER_KERNEL[0] || (major === TRACKER_KERNEL[0] && minor >= TRACKER_KERNEL[1]);
  findings.push(
    isNew && hasBtf
      ? found('tracker-ready', '', `Linux ${kernel} with BTF`)
      : found('tracker-kernel', '', `Linux ${kernel}${hasBtf ? '' : ', no BTF'}`),
  );
  const known = facts.agentDevices.filter((name) => deviceOf(facts, name) !== undefined);
  const isReplicated =
    facts.volumes !== null &&
    known.some((name) => beneath(facts, name).length > 0) &&
    notReplicated(facts, known).length === 0;
  if (isReplicated) {
    findings.push(found('agent-on-volume', '', 'the agent is on a volume that it replicates'));
  }
  return findings;
}
