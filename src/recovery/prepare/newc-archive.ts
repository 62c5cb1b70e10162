/** A cpio archive ("newc"), as the kernel unpacks an initramfs. Folders above an entry are made. */
import { dirname } from 'node:path';

export interface ArchiveEntry {
  readonly path: string;
  /** Type and permissions: 0o100755 a file, 0o40755 a folder, 0o120777 a symbolic link. */
  readonly mode: number;
  /** Of a link: where it leads. */
  readonly content?: Buffer;
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);

function record(entry: ArchiveEntry, inode: number): Buffer {
  const content = entry.content ?? Buffer.alloc(0);
  const name = Buffer.from(`${entry.path}\0`);
  const fields = [inode, entry.mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const head = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded(Buffer.concat([Buffer.from(head), name])), padded(content)]);
}

export function newcArchive(entries: readonly ArchiveEntry[]): Buffer {
  const all = new Map<string, ArchiveEntry>();
  const addFolder = (path: string): void => {
    if (path === '.' || all.has(path)) return;
    addFolder(dirname(path));
    all.set(path, { path, mode: 0o40755 });
  };
  for (const entry of entries) {
    addFolder(dirname(entry.path));
    all.set(entry.path, entry);
  }
  const records = [...all.values()].map((entry, index) => record(entry, index + 1));
  return Buffer.concat([...records, record({ path: 'TRAILER!!!', mode: 0 }, 0)]);
}
