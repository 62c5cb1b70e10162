/**
 * Which packs a check reads when it does not read all of them: part N of M (by the pack's id, so that M
 * checks read every pack once), a percentage, or so many bytes; the last two at random, so that checks
 * from time to time come by everything sooner or later. Structure and footers are always looked at.
 */
import { UnderstudyError } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';

export type Subset =
  /** `part` counts from 1. */
  | { readonly kind: 'part'; readonly part: number; readonly of: number }
  | { readonly kind: 'percent'; readonly percent: number }
  | { readonly kind: 'size'; readonly bytes: number };

interface SubsetPack {
  /** 32 hex digits. */
  readonly id: string;
  readonly fileBytes: number;
}

/** "3/7", "2.5%" or "10GiB". ERR_USAGE. */
export function parseSubset(text: string): Subset {
  const part = /^(\d{1,6})\/(\d{1,6})$/.exec(text);
  if (part !== null) {
    const [number, of] = [Number(part[1]), Number(part[2])];
    if (number < 1 || number > of) throw wrong(text, 'the part is from 1 to the number of parts');
    return { kind: 'part', part: number, of };
  }
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text);
  if (percent !== null) {
    const value = Number(percent[1]);
    if (value <= 0 || value > 100) throw wrong(text, 'a percentage is above 0 and at most 100');
    return { kind: 'percent', percent: value };
  }
  if (!/[a-z]$/i.test(text)) throw wrong(text, 'give N/M, P% or a size with its unit');
  const bytes = parseSize(text);
  if (bytes === 0) throw wrong(text, 'nothing would be read');
  return { kind: 'size', bytes };
}

const wrong = (text: string, why: string): UnderstudyError =>
  new UnderstudyError('ERR_USAGE', `not a part of the data: "${text}": ${why}`);

/**
 * Ids of the packs to read; at least one where there are any, but for a part, which may be empty.
 * `random`: 0 <= value < 1.
 */
export function chooseSubset(
  packs: readonly SubsetPack[],
  subset: Subset,
  random: () => number,
): Set<string> {
  if (subset.kind === 'part') {
    const { part, of } = subset;
    const isOurs = ({ id }: SubsetPack) => Number.parseInt(id.slice(0, 12), 16) % of === part - 1;
    return new Set(packs.filter(isOurs).map(({ id }) => id));
  }
  const total = packs.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
  const wanted = subset.kind === 'size' ? subset.bytes : (total * subset.percent) / 100;
  const order = [...packs];
  const chosen = new Set<string>();
  for (let bytes = 0; bytes < wanted && order.length > 0; ) {
    const [next] = order.splice(Math.floor(random() * order.length), 1);
    bytes += next!.fileBytes;
    chosen.add(next!.id);
  }
  return chosen;
}
