/** May this disk be overwritten with that volume? Pure; the facts are gathered by `target-facts.ts`. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import type { TargetFacts } from './target-facts.ts';

export interface WantedVolume {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
}

/** Why not; '' where it may be. `replicated`: real paths of what agents on this machine replicate. */
export function refusalOfTarget(
  facts: TargetFacts,
  wanted: WantedVolume,
  replicated: readonly string[],
): string {
  const { kind, uses, isReadOnly, sizeBytes, sectorBytes } = facts;
  if (kind === 'missing') return 'there is no such disk';
  if (kind === 'other') return 'it is neither a block device nor a regular file';
  if (uses.length > 0) return `it is in use: ${uses.join(', ')}`;
  if (isReadOnly) return 'it is read-only';
  if (replicated.includes(facts.realPath)) {
    return 'an agent on this machine replicates it: stop the agent first';
  }
  if (sizeBytes < wanted.sizeBytes) {
    const sizes = `${formatSize(sizeBytes)} of ${formatSize(wanted.sizeBytes)}`;
    return `it is too small for ${wanted.volume}: ${sizes} (${sizeBytes} of ${wanted.sizeBytes} bytes)`;
  }
  if (sectorBytes !== 0 && sectorBytes !== wanted.sectorBytes) {
    const what = `its sectors have ${sectorBytes} bytes, those of ${wanted.volume}`;
    return `${what} ${wanted.sectorBytes}: its partition table would not be found`;
  }
  return '';
}

/** ERR_FAILBACK_TARGET. */
export function checkTarget(
  facts: TargetFacts,
  wanted: WantedVolume,
  replicated: readonly string[],
): void {
  const why = refusalOfTarget(facts, wanted, replicated);
  const { path } = facts;
  if (why !== '') throw new UnderstudyError('ERR_FAILBACK_TARGET', `${path}: ${why}`, { path });
}
