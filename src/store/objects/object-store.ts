/**
 * A place for objects that are written once: a bucket with a prefix, or a directory. One conformance suite
 * holds all implementations to this contract.
 *
 * Names are relative, with `/` between their parts (`packs/3f/3f0c..e1.pack`). An object is there whole or
 * not at all. Errors are UnderstudyErrors: ERR_DISK_NOT_FOUND for a name that is not there, ERR_OBJECTS_*
 * for what a remote store says, ERR_DISK_* for what a disk says.
 */

export interface ListedObject {
  readonly name: string;
  readonly bytes: number;
  /** When the store took it, ms since 1970, by the store's clock. */
  readonly modifiedMs: number;
  /** The store's own word for where it keeps it (`STANDARD`, `GLACIER_IR`); empty where there is none. */
  readonly storageClass: string;
}

/** What is put: bytes at hand, or ranges of something that can be read again when a part is sent again. */
export interface ObjectSource {
  readonly bytes: number;
  /** Exactly `length` bytes at `offset`. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Where given: to be called with what was read once nobody looks at it any more; it is empty then. */
  release?(bytes: Uint8Array): void;
}

export interface ObjectStore {
  /** How messages name it: `s3://bucket/prefix`, or the directory. */
  readonly place: string;
  /**
   * Stores an object under a name that is free; durable once it resolves. 'exists' where the name is taken
   * by other bytes, which stay as they are. A name that is taken by the very same bytes is 'stored': the
   * answer to an earlier try may have been lost.
   */
  put(name: string, source: ObjectSource): Promise<'stored' | 'exists'>;
  /** Up to `length` bytes at `offset`; fewer only at the end. ERR_DISK_NOT_FOUND. */
  read(name: string, offset: number, length: number): Promise<Uint8Array>;
  /** Null where there is no such object. */
  bytes(name: string): Promise<number | null>;
  /** All objects whose names begin with `prefix`, in ascending order of their names. */
  list(prefix: string): AsyncGenerator<ListedObject>;
  /**
   * Removes the object for good, with all its versions; one that is not there is removed already. 'locked'
   * where the store keeps it for a time (Object Lock): then nothing has changed.
   */
  remove(name: string): Promise<'removed' | 'locked'>;
  /**
   * Moves an object to another storage class, its bytes and name unchanged. 'unchanged' where the store has
   * no classes, keeps the object for a time, or has lost it meanwhile.
   */
  reclass(name: string, storageClass: string): Promise<'moved' | 'unchanged'>;
  /**
   * Removes what interrupted puts have left behind; returns how much of it there was. Only the one writer
   * may call it, and while it puts nothing.
   */
  clean(): Promise<number>;
  /** True where the store would keep it if it were to be removed now. */
  isLocked(name: string): Promise<boolean>;
  /** Calls that are under way may fail. */
  close(): Promise<void>;
}

export const sourceOf = (bytes: Uint8Array): ObjectSource => ({
  bytes: bytes.length,
  read: async (offset, length) => bytes.subarray(offset, offset + length),
});
