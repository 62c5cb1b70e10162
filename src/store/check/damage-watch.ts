/**
 * Looks after what was found to be damaged while the store is open: notes are made durable, and where the
 * newest state of a volume is hurt a rescan is demanded and whoever runs the sessions is told. Each look
 * takes the lane of upkeep; what is noted meanwhile is looked at by the next one. At its start a store looks
 * whether maps lead to the newest states at all: points that are made upon a gap could not be restored.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Core } from '../core.ts';
import type { Upkeep } from '../upkeep/upkeep.ts';
import { demandRescans, demandUnled } from './needs-rescan.ts';

export class DamageWatch {
  private readonly core: Core;
  private readonly upkeep: Upkeep;
  private readonly listeners: ((server: string) => void)[] = [];
  private isWaiting = false;

  constructor(core: Core, upkeep: Upkeep) {
    this.core = core;
    this.upkeep = upkeep;
    core.damage.onNoted = () => this.kick();
    const hidden = core.disk.hidden?.() ?? [];
    if (!core.damage.isEmpty || hidden.length > 0) this.kick();
    this.soon(() => this.told(demandUnled));
  }

  listen(listener: (server: string) => void): void {
    this.listeners.push(listener);
  }

  /** Something was found: look, soon. */
  kick(): void {
    if (this.isWaiting) return;
    this.isWaiting = true;
    this.soon(() => this.look());
  }

  /** Not within the call that has found something: it may hold the lane itself. */
  private soon(look: () => Promise<void>): void {
    Promise.resolve()
      .then(() => this.upkeep.run(look))
      .catch((error: unknown) => {
        this.isWaiting = false;
        const isClosed = error instanceof UnderstudyError && error.code === 'ERR_STORE_CLOSED';
        const fields = { error: error instanceof Error ? error.message : String(error) };
        if (!isClosed) this.core.log.error('damage could not be looked after', fields);
      });
  }

  private async look(): Promise<void> {
    this.isWaiting = false;
    await this.core.damage.save();
    await this.told(demandRescans);
  }

  private async told(demand: (core: Core) => Promise<string[]>): Promise<void> {
    for (const server of await demand(this.core)) {
      for (const listener of this.listeners) listener(server);
    }
  }
}
