/**
 * The names in a bucket as a tree of folders, in memory: what one listing has said, kept current by whoever
 * is the only writer. A folder is there once something is below it, or it was made. Pure.
 */

export interface Child {
  readonly name: string;
  readonly isDirectory: boolean;
}

const FOLDER = -1;

/** `a/b/c` -> [`a/b`, `c`]; the root's own name is empty. */
function split(name: string): [string, string] {
  const at = name.lastIndexOf('/');
  return at < 0 ? ['', name] : [name.slice(0, at), name.slice(at + 1)];
}

export class BucketListing {
  /** Folder -> its children, each with its bytes, or FOLDER. */
  private readonly folders = new Map<string, Map<string, number>>([['', new Map()]]);

  add(name: string, bytes: number): void {
    const [folder, child] = split(name);
    this.addFolder(folder).set(child, bytes);
  }

  addFolder(name: string): Map<string, number> {
    const known = this.folders.get(name);
    if (known !== undefined) return known;
    const made = new Map<string, number>();
    this.folders.set(name, made);
    const [above, child] = split(name);
    this.addFolder(above).set(child, FOLDER);
    return made;
  }

  remove(name: string): void {
    const [folder, child] = split(name);
    this.folders.get(folder)?.delete(child);
  }

  /** Null where there is no object of this name. */
  bytes(name: string): number | null {
    const [folder, child] = split(name);
    const bytes = this.folders.get(folder)?.get(child) ?? FOLDER;
    return bytes === FOLDER ? null : bytes;
  }

  hasFolder(name: string): boolean {
    return this.folders.has(name);
  }

  /** Sorted. */
  children(folder: string): Child[] {
    const found = [...(this.folders.get(folder) ?? [])];
    return found
      .map(([name, bytes]) => ({ name, isDirectory: bytes === FOLDER }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }
}
