/**
 * The file system as the store sees it: a small set of calls with explicit durability, so that the
 * simulator can stand in with a disk that forgets what was not synced, reorders, or is full. The real
 * one is `node-disk.ts`, the only place in the project that calls fsync, rename or link.
 *
 * Contract: `write` is visible to `read` at once but survives a power cut only after `sync` of that file.
 * A name (create, rename, link, remove) survives only after `syncDirectory` of its folder. Errors are
 * UnderstudyErrors of the ERR_DISK_* codes with {path, syscall, errno}.
 */

export interface DiskFile {
  readonly path: string;
  /** Reads up to buffer.length bytes at `offset`; returns the count, short only at the end of the file. */
  read(buffer: Uint8Array, offset: number): Promise<number>;
  /** Writes all the buffers, back to back, at `offset`. */
  write(buffers: readonly Uint8Array[], offset: number): Promise<void>;
  truncate(size: number): Promise<void>;
  size(): Promise<number>;
  /**
   * fdatasync. A failure is fatal for the file, whatever its code (a full disk's, too): what was written
   * may be gone though it can still be read, so every later sync fails with the same error.
   */
  sync(): Promise<void>;
  /** Waits for calls that are under way; a second time it does nothing. Any other call fails afterwards. */
  close(): Promise<void>;
}

export type OpenMode = 'read' | 'create' | 'write';

/** How a disk is read where every read is a request over a network: many of them are under way at a time. */
export interface FarReads {
  /** So many requests at a time ... */
  readonly requests: number;
  /** ... for so many bytes at most; a larger one goes by itself. */
  readonly bytes: number;
}

export interface Disk {
  /** 'create' fails with ERR_DISK_EXISTS if the name is taken; 'write' makes the file if it is missing. */
  open(path: string, mode: OpenMode): Promise<DiskFile>;
  /** Whole content of a small file. ERR_DISK_NOT_FOUND if missing. */
  readFile(path: string): Promise<Uint8Array>;
  /** Names in a folder, sorted; a missing folder is empty. `directories` tells which are folders. */
  list(path: string): Promise<{ name: string; isDirectory: boolean }[]>;
  exists(path: string): Promise<boolean>;
  makeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Hard link: a second name for the same bytes. ERR_DISK_EXISTS if `to` is taken. */
  link(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  /**
   * Where given: names that `step` makes may be made durable all at once, when this resolves; whatever step
   * does afterwards it must not rely on them before. Names that it removes go after that.
   */
  together?<T>(step: () => Promise<T>): Promise<T>;
  /** Where given: paths of what cannot be read and may hold files that are not listed. */
  hidden?(): readonly string[];
  /** Where given: the disk is far away. Else reads that belong together are made one after the other. */
  readonly far?: FarReads;
}
