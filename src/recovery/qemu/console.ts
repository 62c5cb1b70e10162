/** The console log of a running machine: read as it grows, and kept from filling the disk. */
import { closeSync, openSync, readSync, truncateSync } from 'node:fs';
import { diskError } from '../../base/node-disk.ts';
import { MIB } from '../../base/units.ts';
import { sizeOf } from './console-mask.ts';
import { type ConsoleVerdict, judgeConsole } from './console-state.ts';

const STEP_BYTES = 65_536;
/** A guest that prints without end gets its log emptied at this size. */
export const MAX_CONSOLE_BYTES = 16 * MIB;

export class ConsoleReader {
  private readonly path: string;
  private offset = 0;
  private tail = '';

  constructor(path: string) {
    this.path = path;
  }

  /** Reads what is new, and judges by it. Looks at the last 64 KiB at most. */
  judge(): ConsoleVerdict {
    let verdict: ConsoleVerdict = { kind: 'waiting' };
    for (let text = this.next(); text !== ''; text = this.next()) {
      this.tail = (this.tail + text).slice(-STEP_BYTES);
      verdict = judgeConsole(this.tail);
      if (verdict.kind !== 'waiting') break;
    }
    return verdict;
  }

  /** The end of what was read. */
  get said(): string {
    return this.tail;
  }

  /** What was said so far says nothing of the boot. */
  forget(): void {
    this.tail = '';
    this.offset = sizeOf(this.path);
  }

  /** True where the log had grown too large and was emptied. */
  trim(): boolean {
    if (sizeOf(this.path) < MAX_CONSOLE_BYTES) return false;
    truncateSync(this.path, 0);
    this.offset = 0;
    return true;
  }

  private next(): string {
    if (sizeOf(this.path) <= this.offset) return '';
    const bytes = Buffer.alloc(STEP_BYTES);
    try {
      const fd = openSync(this.path, 'r');
      try {
        const count = readSync(fd, bytes, 0, bytes.length, this.offset);
        this.offset += count;
        return bytes.toString('latin1', 0, count);
      } finally {
        closeSync(fd);
      }
    } catch (cause) {
      throw diskError(cause, this.path);
    }
  }
}
