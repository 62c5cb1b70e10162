/**
 * A password must not stay in the console log. It is typed where the guest shows nothing of it, and a guest
 * may show it all the same: what is found of it in the log is written over, byte by byte, while QEMU
 * appends to the same file.
 */
import { closeSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { diskError } from '../../base/node-disk.ts';

const STAR = 42;

export class ConsoleMask {
  private readonly path: string;
  private readonly secret: Buffer;
  private offset: number;

  /** Looks from `offset` on. */
  constructor(path: string, secret: string, offset: number) {
    this.path = path;
    this.secret = Buffer.from(secret);
    this.offset = offset;
  }

  /** What has come since the last time, and what was only half there then. */
  cover(): void {
    const sizeBytes = sizeOf(this.path);
    if (sizeBytes < this.offset) this.offset = 0; // it was emptied
    if (sizeBytes === this.offset) return;
    try {
      const fd = openSync(this.path, 'r+');
      try {
        this.coverIn(fd, sizeBytes);
      } finally {
        closeSync(fd);
      }
    } catch (cause) {
      throw diskError(cause, this.path);
    }
  }

  private coverIn(fd: number, sizeBytes: number): void {
    const { secret } = this;
    const from = Math.max(0, this.offset - secret.length + 1);
    const bytes = Buffer.alloc(sizeBytes - from);
    const text = bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, from));
    for (let at = text.indexOf(secret); at >= 0; at = text.indexOf(secret, at + secret.length)) {
      writeSync(fd, Buffer.alloc(secret.length, STAR), 0, secret.length, from + at);
    }
    this.offset = from + text.length;
  }
}

export const sizeOf = (path: string): number =>
  statSync(path, { throwIfNoEntry: false })?.size ?? 0;
