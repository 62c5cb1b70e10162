/**
 * Tells what a script has said since it was last looked at, line by line. How far it was told lies beside the
 * output: after the death of staging the last lines may be told twice, and none is lost.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { nodeDisk } from '../../base/node-disk.ts';

export class ScriptOutput {
  private readonly folder: string;
  private readonly say: (line: string) => void;
  private told: number | null = null;
  private hasComplained = false;

  constructor(folder: string, say: (line: string) => void) {
    this.folder = folder;
    this.say = say;
  }

  async tell(): Promise<void> {
    const path = `${this.folder}/output`;
    if (!(await nodeDisk.exists(path))) return;
    this.told ??= await this.toldBefore();
    // Small: the keeper bounds it.
    const rest = Buffer.from(await nodeDisk.readFile(path)).subarray(this.told);
    const end = rest.lastIndexOf(0x0a) + 1;
    if (end === 0) return;
    for (const line of rest.toString('utf8', 0, end - 1).split('\n')) this.say(line);
    this.told += end;
    this.remember(String(this.told));
  }

  /** What cannot be written down is told again by the next life: no reason to give the script up. */
  private remember(told: string): void {
    try {
      writeFileSync(this.toldPath, told, { mode: 0o600 });
    } catch (cause) {
      if (!this.hasComplained) this.say(`(how far this was told is not kept: ${cause})`);
      this.hasComplained = true;
    }
  }

  private get toldPath(): string {
    return `${this.folder}/told`;
  }

  private async toldBefore(): Promise<number> {
    if (!(await nodeDisk.exists(this.toldPath))) return 0;
    const told = Number(readFileSync(this.toldPath, 'latin1'));
    return Number.isSafeInteger(told) ? told : 0;
  }
}
