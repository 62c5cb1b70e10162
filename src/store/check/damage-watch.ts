/**
 * Looks after what was found to be damaged while the store is open: notes are made durable, and where the
 * newest state of a volume is hurt a rescan is demanded and whoever runs the sessions is told. Each look
 * takes the lane of upkeep; what is noted meanwhile is looked at by the next one.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Core } from '../core.ts';
import type { Upkeep } from '../upkeep/upkeep.ts';
import { demandRescans } from './needs-rescan.ts';

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
  }

  listen(listener: (server: string) => void): void {
    this.listeners.push(listener);
  }

  /** Something was found: look, soon. */
  kick(): void {
    if (this.isWaiting) return;
    this.isWaiting = true;
    // Not within the call that has found it: it may hold the lane itself.
    Promise.resolve()
      .then(() => this.upkeep.run(() => this.look()))
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
    for (const server of await demandRescans(this.core)) {
      for (const listener of this.listeners) listener(server);
    }
  }
}
