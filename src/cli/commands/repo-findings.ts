/** Findings of checks for people: a line each, many of one cause in short, and what counts as harm. */
import { formatCount } from '../../base/units.ts';
import type { Finding } from '../../store/types.ts';

/** Of so many of one cause each has its line; of more the first ones. */
const SHOWN = 3;

/** An index or a catalog that is behind is no harm: it is made again. */
export const isHarm = ({ kind }: Finding): boolean =>
  kind !== 'stale-index' && kind !== 'stale-catalog';

/** Errors of objects begin with their paths, which the line says already. */
const detailOf = ({ object, detail }: Finding): string =>
  detail.startsWith(`${object}: `) ? detail.slice(object.length + 2) : detail;

const hurtText = (findings: readonly Finding[]): string => {
  const { size } = new Set(findings.flatMap(({ points }) => points));
  return size === 0 ? '' : `; hurts ${formatCount(size, 'point')}`;
};

export const findingLine = (finding: Finding): string =>
  `${finding.kind}: ${finding.object}: ${detailOf(finding)}${hurtText([finding])}`;

/** What is wrong, without the name of the content that it is wrong with. */
const causeOf = (finding: Finding): string =>
  finding.digest === undefined
    ? detailOf(finding)
    : detailOf(finding)
        .replaceAll(finding.digest, '')
        .replace(/^[\s:]+/, '');

/** Findings about contents by what is wrong with them, the others by their objects. */
const groupOf = (finding: Finding): string =>
  JSON.stringify([finding.kind, finding.digest === undefined ? finding.object : causeOf(finding)]);

/** A line a finding; of many with one cause what they have in common, and the first of them. */
export function findingLines(findings: readonly Finding[]): string[] {
  return grouped(findings, groupOf).flatMap((group) => {
    const [first] = group;
    if (group.length <= SHOWN || first === undefined) return group.map(findingLine);
    const what =
      first.digest === undefined
        ? `${first.object}: ${group.length} findings`
        : `${formatCount(group.length, 'content')}: ${causeOf(first)}`;
    const head = `${first.kind}: ${what}${hurtText(group)}`;
    const some = group.slice(0, SHOWN).map(({ object, digest, ...rest }) => {
      return `  ${object}: ${digest ?? detailOf({ object, ...rest })}`;
    });
    return [head, ...some, moreThan(SHOWN, group)];
  });
}

/** The last line of what is not told wholly. */
const moreThan = (shown: number, all: readonly unknown[]): string =>
  `  and ${all.length - shown} more: --json tells all`;

interface Step {
  readonly object: string;
  readonly action: string;
  readonly isPossible: boolean;
}

/** Steps of a repair, `mark` before each: those that differ in the name of a content alone in short. */
export function stepLines(steps: readonly Step[], mark: (step: Step) => string): string[] {
  const line = (step: Step) => `${mark(step)}: ${step.object}: ${step.action}`;
  const common = ({ action }: Step) => action.replaceAll(/\b[0-9a-f]{64}\b/g, '..');
  return grouped(steps, (step) => JSON.stringify([mark(step), common(step)])).flatMap((group) => {
    const [first] = group;
    const isOneCause = first !== undefined && common(first) !== first.action;
    if (!isOneCause || group.length <= SHOWN) return group.map(line);
    const head = `${mark(first)}: ${group.length} times: ${common(first)}`;
    const some = group.slice(0, SHOWN).map(({ object, action }) => `  ${object}: ${action}`);
    return [head, ...some, moreThan(SHOWN, group)];
  });
}

/** In the order in which their first ones come. */
function grouped<Item>(items: readonly Item[], keyOf: (item: Item) => string): Item[][] {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return [...groups.values()];
}

export function verdictOf(findings: readonly Finding[]): string {
  const harm = findings.filter(isHarm).length;
  return harm === 0 ? 'all well' : `${harm} damaged`;
}
