/**
 * Blocks are put side by side and end in any order; what is written down is the index below which all have
 * ended. Pure.
 */

interface Begun {
  readonly index: number;
  /** Undefined while under way; null where the block needed no put. */
  digest: Buffer | null | undefined;
}

export class Frontier {
  private begun: Begun[] = [];
  private next: number;

  constructor(first: number) {
    this.next = first;
  }

  /** Indexes ascend. The returned function says how the block ended. */
  begin(index: number): (digest: Buffer | null) => void {
    const block: Begun = { index, digest: undefined };
    this.begun.push(block);
    return (digest) => {
      block.digest = digest;
    };
  }

  /** What has ended without a gap since the last call: everything below `next`. */
  take(): { next: number; digests: Buffer[] } {
    const open = this.begun.findIndex((block) => block.digest === undefined);
    const ended = open < 0 ? this.begun : this.begun.slice(0, open);
    this.begun = open < 0 ? [] : this.begun.slice(open);
    const last = ended.at(-1);
    if (last !== undefined) this.next = last.index + 1;
    const digests = ended.flatMap(({ digest }) => (digest ? [digest] : []));
    return { next: this.next, digests };
  }
}
