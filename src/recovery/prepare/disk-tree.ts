/**
 * The files of a disk's root file system as the preparation sees them: in the virtual machine (guest.ts), or
 * in a test's memory. Paths are absolute and lead through links as they do for the machine itself.
 */

/** d: folder, f: file, l: a link that leads nowhere, o: something else. */
export type FileKind = 'd' | 'f' | 'l' | 'o';

export interface Entry {
  readonly kind: FileKind;
  readonly name: string;
}

/** A Refusal (guest.ts) is thrown where the file system says no. */
export interface DiskTree {
  /** At most `mostBytes` (1 MiB); a larger one is refused. */
  read(path: string, mostBytes?: number): Promise<Buffer>;
  /** kind null: not there. */
  stat(path: string): Promise<{ kind: FileKind | null; sizeBytes: number }>;
  /** Empty where there is no such folder. */
  list(path: string): Promise<Entry[]>;
  freeBytes(path: string): Promise<number>;
  /** Into the file that is there, which stays what it is, or a new one of `mode`. */
  write(path: string, content: Uint8Array, mode?: number): Promise<void>;
  append(path: string, content: Uint8Array): Promise<void>;
  /** With owner and rights; nothing where `to` is there already. */
  copy(from: string, to: string): Promise<void>;
  move(from: string, to: string): Promise<void>;
  link(target: string, path: string): Promise<void>;
  /** An SELinux context, of a link its own. */
  label(context: string, path: string): Promise<void>;
}
