/**
 * What the repository needs from time to time, in one lane, one thing at a time: bases, index objects,
 * merging of small packs; and, in the same lane, retention, collection and check. Looked after each time
 * that points were sealed. Nothing that is acknowledged depends on it: an error is logged and the next
 * turn tries again.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { type Core, temporaryPath } from '../core.ts';
import { isDamage } from '../format/object-header.ts';
import { isPassing, needsHelp } from '../passing.ts';
import { shortenChains } from './base-due.ts';
import { mergeSmallPacks } from './collect.ts';
import { retireDamaged } from './retire-damaged.ts';

export class Upkeep {
  private readonly core: Core;
  private isWaiting = false;
  private isClosed = false;

  constructor(core: Core) {
    this.core = core;
  }

  /** Something was sealed: look after it, soon. */
  kick(): void {
    if (this.isWaiting || this.isClosed) return;
    this.isWaiting = true;
    this.core.upkeep
      .run(async () => {
        this.isWaiting = false;
        if (!this.isClosed) await this.turn();
      })
      .catch((error: unknown) => this.report(error));
  }

  /** Runs a step in the lane. */
  run<T>(step: () => Promise<T>): Promise<T> {
    if (this.isClosed) throw new UnderstudyError('ERR_STORE_CLOSED', 'the store is closed');
    return this.core.upkeep.run(step);
  }

  /** Resolves once nothing runs any more. */
  async close(): Promise<void> {
    this.isClosed = true;
    await this.core.upkeep.run(async () => undefined);
  }

  private async turn(): Promise<void> {
    for (const step of [shortenChains, mergeSmallPacks, retireDamaged, keepIndex]) {
      try {
        await step(this.core);
      } catch (error) {
        // The damage of one object keeps none of the other steps from their turn.
        if (!isDamage(error)) throw error;
        this.report(error);
      }
    }
  }

  private report(error: unknown): void {
    const fields = { error: error instanceof Error ? error.message : String(error) };
    if (isPassing(error) && !needsHelp(error)) this.core.log.warn('upkeep waits', fields);
    else this.core.log.error('upkeep failed', fields);
  }
}

/** Published pieces in memory become an index object where they are many; objects are merged. */
async function keepIndex(core: Core): Promise<void> {
  const { index, settings } = core;
  if (index.publishedCount > settings.indexMemoryEntries) await index.flush(temporaryPath(core));
  while (await index.merge(temporaryPath(core)));
}
