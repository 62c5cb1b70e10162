/**
 * Which commits count. Each life of a staging service on a leased repository is a term of its own, and
 * its commits have the sequences of that term. When a term begins it is written down which commit of the
 * earlier ones is the last that counts: what a process that was paused and has lost its lease writes after
 * that is stale. Readers leave it out, and the holder of the lease writes over it.
 */
import type { Disk } from '../../base/disk.ts';
import type { Log } from '../../base/log.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { decodeTerm, parseTermName, SEQUENCES_PER_TERM, type TermRecord } from './lease-record.ts';

const termOf = (sequence: number): number => Math.floor(sequence / SEQUENCES_PER_TERM);

export class Terms {
  highest = 0;
  private readonly records: TermRecord[] = [];

  /** True where nothing can be stale. */
  get isEmpty(): boolean {
    return this.records.length === 0;
  }

  add(record: TermRecord): void {
    this.records.push(record);
    this.note(record.term);
  }

  /** There was such a term, whatever is known of it. */
  note(term: number): void {
    this.highest = Math.max(this.highest, term);
  }

  /** True for a commit that came after the end of its term. */
  isStale(sequence: number): boolean {
    const term = termOf(sequence);
    return this.records.some((later) => later.term > term && sequence > later.acceptedUpTo);
  }
}

/** By the names alone: what is in the records may be sealed, and needs a key. 0 where there is none. */
export async function highestTerm(disk: Pick<Disk, 'list'>, folder: string): Promise<number> {
  const names = await disk.list(folder);
  return names.reduce((highest, { name }) => Math.max(highest, parseTermName(name) ?? 0), 0);
}

/**
 * All that were written down. One that is damaged is told and left out: to show what is stale does less
 * harm than to show nothing.
 */
export async function readTerms(disk: Disk, folder: string, log: Log): Promise<Terms> {
  const terms = new Terms();
  for (const { name } of await disk.list(folder)) {
    const term = parseTermName(name);
    if (term === null) continue;
    terms.note(term);
    try {
      terms.add(await readTerm(disk, `${folder}/${name}`, term));
    } catch (error) {
      if (isNotFound(error)) continue;
      if (!isDamage(error)) throw error;
      log.error('the record of a term is damaged', {
        path: `${folder}/${name}`,
        error: error.message,
      });
    }
  }
  return terms;
}

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function readTerm(disk: Disk, path: string, term: number): Promise<TermRecord> {
  const record = decodeTerm(await disk.readFile(path), path);
  if (record.term !== term) throw damaged(path, 'the term of another name');
  return record;
}
