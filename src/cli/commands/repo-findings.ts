/** Findings of checks for people: a line each, and what counts as harm. */
import { formatCount } from '../../base/units.ts';
import type { Finding } from '../../store/types.ts';

/** An index or a catalog that is behind is no harm: it is made again. */
export const isHarm = ({ kind }: Finding): boolean =>
  kind !== 'stale-index' && kind !== 'stale-catalog';

export const findingLine = (finding: Finding): string =>
  `${finding.kind}: ${finding.object}: ${finding.detail}` +
  (finding.points.length === 0 ? '' : `; hurts ${formatCount(finding.points.length, 'point')}`);

export function verdictOf(findings: readonly Finding[]): string {
  const harm = findings.filter(isHarm).length;
  return harm === 0 ? 'all well' : `${harm} damaged`;
}
