/**
 * A folder for one test, and a stack of what must be undone at its end: devices, mounts, processes. All
 * names are made here, none is fixed; what a killed run leaves is found by this folder's path (scripts/test).
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

export class Scratch {
  readonly folder: string;
  /** A source server's name that nobody else uses: the tracker's pins are named by it. */
  readonly server: string;
  private readonly undo: (() => void | Promise<void>)[] = [];

  constructor(name: string) {
    const base = process.env.TEST_SCRATCH ?? (process.env.TMPDIR ? tmpdir() : '/dev/shm');
    mkdirSync(base, { recursive: true });
    this.folder = mkdtempSync(join(base, `understudy-${name}-`));
    this.server = basename(this.folder).replace('understudy', 'test');
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Runs at the end, the last one first. */
  defer(undo: () => void | Promise<void>): void {
    this.undo.push(undo);
  }

  /** The ends of the logs of the processes that ran here. */
  lastWords(): string {
    const logs = readdirSync(this.folder).filter((name) => name.endsWith('.err'));
    const tails = logs.map((name) => {
      const lines = readFileSync(this.path(name), 'utf8').trimEnd().split('\n');
      return `${name}:\n${lines.slice(-15).join('\n')}`;
    });
    return tails.join('\n');
  }

  /** Undoes everything; throws the first failure after having tried the rest. */
  async clean(): Promise<void> {
    const failures: unknown[] = [];
    for (const undo of this.undo.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        failures.push(error);
      }
    }
    rmSync(this.folder, { recursive: true, force: true });
    if (failures.length > 0) throw failures[0];
  }
}

/** Runs a test's body with a scratch of its own. */
export async function withScratch(
  name: string,
  body: (scratch: Scratch) => Promise<void>,
): Promise<void> {
  const scratch = new Scratch(name);
  try {
    await body(scratch);
  } catch (error) {
    // What the processes had to say goes with the failure; the folder goes away.
    console.log(scratch.lastWords());
    throw error;
  } finally {
    await scratch.clean();
  }
}
