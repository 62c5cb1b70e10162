/** `understudy repo check --last`: what the scrub and the last check have found; nothing is read for it. */
import { formatSize } from '../../base/units.ts';
import type { ApiScrub } from '../../staging/api-types.ts';
import { renderFields } from '../table.ts';
import { findingLines, verdictOf } from './repo-findings.ts';

const timeOf = (ms: number | null): string => (ms === null ? 'never' : new Date(ms).toISOString());

export function renderLast(scrub: ApiScrub): string {
  const { state, startedMs, packs, bytes, finished, checkedMs, findings, hurtPoints } = scrub;
  const round = `since ${timeOf(startedMs)}: ${packs} packs, ${formatSize(bytes)}`;
  const whole = finished === null ? 'never' : timeOf(finished.endedMs);
  const fields: [string, string][] = [
    ['scrub', state === 'reading' ? `reading ${round}` : state],
    ['read wholly', finished === null ? whole : `${whole}, ${formatSize(finished.bytes)}`],
    ['looked at', timeOf(checkedMs)],
    ['found', checkedMs === null ? 'nothing yet' : verdictOf(findings)],
  ];
  if (hurtPoints.length > 0) fields.push(['hurt points', hurtPoints.join(', ')]);
  return [renderFields(fields), ...findingLines(findings)].join('\n');
}
