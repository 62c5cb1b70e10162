/**
 * Which bundles a process that has lost the repository may still put, and how they are void before they are
 * there. FORMAT-ELSEWHERE.md, "Bundles".
 *
 * Bundles are put one after the other, and the highest number of a term stands until there is a higher one.
 * So a process that was paused can put two names: that of its last bundle once more, where the answer to the
 * first try was lost, and the number after it; then it asks for its lease. The first bundle of a term has
 * what counts of the last ones before it, and names both as replaced, whether they are there or not.
 */
export const FOLDER = 'bundles/';
const BUNDLES_PER_TERM = 10 ** 10;

/** A member without content, of the bundle that has the names that must never count. */
export const CLOSES = 'closes';
/** So many terms are kept closed, the newest: two names each. Who goes on in a term closes two of its own. */
const TERMS_KEPT = 256;
const NAMES_KEPT = 2 * TERMS_KEPT;

export const bundleName = (number: number): string =>
  `${FOLDER}${String(number).padStart(16, '0')}.bundle`;

export function numberOf(name: string): number {
  const match = /^bundles\/(\d{16})\.bundle$/.exec(name);
  return match === null ? 0 : Number(match[1]);
}

export const termOf = (number: number): number => Math.floor(number / BUNDLES_PER_TERM);
export const firstOfTerm = (term: number): number => term * BUNDLES_PER_TERM + 1;

export interface Closing {
  /** The last bundles of the terms that are closed now. */
  readonly last: readonly string[];
  /** Names that must not count from now on. */
  readonly closes: readonly string[];
  /** Of the bundle that closes: above all that were put, or may be yet. */
  readonly number: number;
}

/**
 * `names` of all bundles that are there; `former`: the term that has closed those before it, and what for.
 * Where the term itself has bundles, another process has been in it and has ended: its last are closed, too.
 */
export function closeTerms(
  names: Iterable<string>,
  term: number,
  former: { readonly term: number; readonly closes: readonly string[] } | undefined,
): Closing {
  const highest = new Map<number, number>();
  for (const name of names) {
    const number = numberOf(name);
    const of = termOf(number);
    highest.set(of, Math.max(highest.get(of) ?? 0, number));
  }
  const last: string[] = [];
  const fresh: string[] = [];
  for (let of = Math.max(former?.term ?? 0, term - TERMS_KEPT, 0); of < term; of += 1) {
    const number = highest.get(of) ?? firstOfTerm(of) - 1;
    last.push(bundleName(number));
    fresh.push(bundleName(number), bundleName(number + 1));
  }
  const own = highest.get(term);
  if (own !== undefined) {
    last.push(bundleName(own));
    fresh.push(bundleName(own), bundleName(own + 1));
  }
  const kept = [...new Set([...(former?.closes ?? []), ...fresh])]
    .filter((name) => termOf(numberOf(name)) >= term - TERMS_KEPT)
    .sort()
    .slice(-NAMES_KEPT);
  return { last, closes: kept, number: own === undefined ? firstOfTerm(term) : own + 2 };
}
