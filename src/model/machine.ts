/**
 * What a source server is, and what was found when it was looked at for whether it will boot elsewhere: a
 * report that travels from the agent to staging and is kept there, for right-sizing a recovery instance
 * and for the operator. What is found and how severe it is, is decided in `doctor/`.
 */

/** Worst first. Append-only: the place in this list is the byte on the wire. */
export const severities = [
  /** The machine will not come up elsewhere as it is. */
  'blocks-boot',
  /** It depends on where it is started, or on what could not be looked at. */
  'may-block',
  /** It comes up, and lacks this. */
  'data-left-behind',
  'advice',
  'fine',
] as const;
export type Severity = (typeof severities)[number];

/** Append-only, as above. */
export const bootModes = ['unknown', 'bios', 'uefi'] as const;
export type BootMode = (typeof bootModes)[number];

export interface Finding {
  /** Stable: a word of `doctor/catalogue.ts`. */
  readonly code: string;
  readonly severity: Severity;
  /** A device, a file, a mount point; '' where the machine as a whole is meant. */
  readonly subject: string;
  readonly seen: string;
  /** '' where there is nothing to do. */
  readonly action: string;
}

export interface MachineReport {
  /** When it was looked at: wall clock, ms since 1970. */
  readonly timeMs: number;
  /** As `uname -m` says. */
  readonly architecture: string;
  readonly kernel: string;
  /** The operating system's own name. */
  readonly system: string;
  readonly bootMode: BootMode;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  /** The volume that holds the root file system, as given to the agent; '' where it is not known. */
  readonly bootVolume: string;
  /** Worst first. */
  readonly findings: readonly Finding[];
}

export const hasBlockers = (findings: readonly Finding[]): boolean =>
  findings.some(({ severity }) => severity === 'blocks-boot');

/** How many there are of each severity. */
export function countBySeverity(findings: readonly Finding[]): Record<Severity, number> {
  const counts = Object.fromEntries(severities.map((each) => [each, 0]));
  for (const { severity } of findings) counts[severity] = (counts[severity] ?? 0) + 1;
  return counts as Record<Severity, number>;
}
