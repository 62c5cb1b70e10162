/**
 * The packs that pieces may lie in, numbered for this run: published ones and, until they are, the
 * segments of the journal. A number is never used again; a pack that is condemned or gone is not found.
 */
import type { PackSums } from './pack-format.ts';

export interface PackInfo extends PackSums {
  readonly number: number;
  readonly id: string;
  /** Where its bytes lie now. */
  readonly path: string;
  readonly fileBytes: number;
  /** True once it lies in the repository. */
  readonly isPublished: boolean;
  /** Condemned: nothing new may refer to it; it will be deleted. */
  readonly isCondemned: boolean;
}

export class PackTable {
  private readonly list: (PackInfo | null)[] = [];
  private readonly numbers = new Map<string, number>();

  /** Grows whenever a pack comes, goes, or gets its name in the repository. */
  changes = 0;

  /** Ids that are condemned already when they are added. */
  readonly condemned = new Set<string>();

  add(given: Omit<PackInfo, 'number' | 'isCondemned'>): PackInfo {
    const number = this.list.length;
    const info = { ...given, number, isCondemned: this.condemned.has(given.id) };
    this.list.push(info);
    this.changes += 1;
    this.numbers.set(info.id, number);
    return info;
  }

  /** A pack of the repository; a reader may know it as the segment that it was. */
  enter(given: Omit<PackInfo, 'number' | 'isCondemned'>): PackInfo {
    const known = this.byId(given.id);
    if (known === null) return this.add(given);
    this.update(known.number, given);
    return this.byId(given.id)!;
  }

  byId(id: string): PackInfo | null {
    const number = this.numbers.get(id);
    return number === undefined ? null : (this.list[number] ?? null);
  }

  byNumber(number: number): PackInfo | null {
    return this.list[number] ?? null;
  }

  update(number: number, change: Partial<Omit<PackInfo, 'number'>>): void {
    const info = this.list[number];
    if (info == null) return;
    this.list[number] = { ...info, ...change };
    if (change.isPublished === true) this.changes += 1;
  }

  remove(number: number): void {
    const info = this.list[number];
    if (info == null) return;
    this.list[number] = null;
    this.changes += 1;
    this.numbers.delete(info.id);
  }

  *all(): Generator<PackInfo> {
    for (const info of this.list) if (info !== null) yield info;
  }
}
