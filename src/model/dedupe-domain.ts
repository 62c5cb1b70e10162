/**
 * Dedupe domains: servers whose operator says that they may learn of each other what they hold. Within one,
 * a content that any of them has sent is not sent again by another. Without one a server is told "have" of
 * what it has sent itself, and of nothing else: an offer must not tell what another server stores. Pure.
 */
import { UnderstudyError } from '../base/errors.ts';

/** Servers of one domain. */
export type DedupeDomain = readonly string[];

const bad = (message: string): UnderstudyError => new UnderstudyError('ERR_USAGE', message);

/**
 * ["web=web1,web2", "db=db1,db2"]; where commas have split it already ("web=web1", "web2"), an item without
 * `=` belongs to the one before. ERR_USAGE.
 */
export function parseDedupeDomains(items: readonly string[]): DedupeDomain[] {
  const domains = new Map<string, string[]>();
  let current: string[] | null = null;
  for (const item of items) {
    const [name, list, ...rest] = item.split('=');
    if (rest.length > 0 || name === '') throw bad(`not a dedupe domain: "${item}"`);
    if (list !== undefined) {
      if (domains.has(name!)) throw bad(`the dedupe domain ${name} is given twice`);
      current = [];
      domains.set(name!, current);
    }
    if (current === null) throw bad(`not a dedupe domain: "${item}" (NAME=SERVER,SERVER)`);
    current.push(...(list ?? name!).split(',').filter((server) => server !== ''));
  }
  const seen = new Set<string>();
  for (const server of [...domains.values()].flat()) {
    if (seen.has(server)) throw bad(`${server} is named twice in the dedupe domains`);
    seen.add(server);
  }
  for (const [name, servers] of domains) {
    if (servers.length < 2) throw bad(`the dedupe domain ${name} needs two servers or more`);
  }
  return [...domains.values()];
}
