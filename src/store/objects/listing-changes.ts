/**
 * What a step that is under way has put and removed, over a listing that does not know of it yet: the step
 * itself sees it, nobody else does before it is durable. Pure.
 */
import type { BucketListing, Child } from './bucket-listing.ts';

const dirname = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf('/')));
const basename = (name: string): string => name.slice(name.lastIndexOf('/') + 1);

export class ListingChanges {
  private readonly added = new Map<string, number>();
  private readonly removed = new Set<string>();

  add(name: string, bytes: number): void {
    this.added.set(name, bytes);
    this.removed.delete(name);
  }

  remove(name: string): void {
    this.added.delete(name);
    this.removed.add(name);
  }

  /** All names that were put or removed. */
  get names(): string[] {
    return [...this.added.keys(), ...this.removed];
  }

  bytes(base: BucketListing, name: string): number | null {
    if (this.removed.has(name)) return null;
    return this.added.get(name) ?? base.bytes(name);
  }

  hasFolder(base: BucketListing, folder: string): boolean {
    const isAdded = [...this.added.keys()].some((name) => name.startsWith(`${folder}/`));
    return isAdded || base.hasFolder(folder);
  }

  children(base: BucketListing, folder: string): Child[] {
    const below = folder === '' ? '' : `${folder}/`;
    const found = new Map<string, Child>();
    for (const child of base.children(folder)) {
      if (!this.removed.has(below + child.name)) found.set(child.name, child);
    }
    for (const name of this.added.keys()) {
      if (!name.startsWith(below)) continue;
      const isDirectory = dirname(name) !== folder;
      const child = isDirectory ? name.slice(below.length).split('/', 1)[0]! : basename(name);
      found.set(child, { name: child, isDirectory });
    }
    return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  applyTo(base: BucketListing): void {
    for (const name of this.removed) base.remove(name);
    for (const [name, bytes] of this.added) base.add(name, bytes);
  }
}
