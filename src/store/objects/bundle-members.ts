/** What is known of a bundle that was read (bundled-objects.ts), and its members' bytes. */
import type { BundleMember } from './bundle-format.ts';
import type { ObjectStore } from './object-store.ts';

export interface Bundle {
  readonly name: string;
  readonly modifiedMs: number;
  readonly storageClass: string;
  /** Members that count. */
  readonly alive: Map<string, BundleMember>;
  /** Bundles that may be there still and must not count. */
  replaces: readonly string[];
  /** Names that must never count, whoever puts them; not empty where it has the member CLOSES. */
  readonly closes: readonly string[];
}

/** What counts of these bundles, but for `removed`, by name. */
export async function membersOf(
  objects: Pick<ObjectStore, 'read'>,
  bundles: readonly Bundle[],
  removed: ReadonlySet<string> = new Set(),
): Promise<Map<string, Uint8Array>> {
  const members = new Map<string, Uint8Array>();
  for (const { name: bundle, alive } of bundles) {
    const wanted = [...alive.values()].filter(({ name }) => !removed.has(name));
    const start = Math.min(...wanted.map(({ offset }) => offset));
    const end = Math.max(...wanted.map(({ offset, bytes }) => offset + bytes));
    const sum = wanted.reduce((total, { bytes }) => total + bytes, 0);
    // One request for all of them, where that does not read much that is not wanted.
    const isDense = wanted.length > 1 && sum * 2 >= end - start && sum > 0;
    const all = isDense ? await objects.read(bundle, start, end - start) : null;
    for (const { name, offset, bytes } of wanted) {
      const part = all?.subarray(offset - start, offset - start + bytes);
      const isEmpty = bytes === 0;
      members.set(
        name,
        part ?? (isEmpty ? new Uint8Array(0) : await objects.read(bundle, offset, bytes)),
      );
    }
  }
  return members;
}
