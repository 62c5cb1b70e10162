/**
 * Points that operators asked for: remembered until they come or their time is over, told again to an
 * agent that connects anew.
 */

import type { Clock, Timer } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import type { ServerId } from '../model/replication.ts';

interface Open {
  readonly server: ServerId;
  readonly timer: Timer;
  readonly result: PromiseWithResolvers<string>;
}

export class PointRequests {
  private readonly clock: Clock;
  private readonly newId: () => string;
  private readonly open = new Map<string, Open>();

  constructor(clock: Clock, newId: () => string) {
    this.clock = clock;
    this.newId = newId;
  }

  /** `committed` resolves with the point's id, or rejects with ERR_POINT_TIMEOUT. */
  add(server: ServerId, timeoutMs: number): { requestId: string; committed: Promise<string> } {
    const requestId = this.newId();
    const result = Promise.withResolvers<string>();
    const timer = this.clock.after(timeoutMs, () => {
      this.open.delete(requestId);
      const message = `no point of ${server} within ${formatDuration(timeoutMs)}`;
      result.reject(new UnderstudyError('ERR_POINT_TIMEOUT', message, { server }));
    });
    this.open.set(requestId, { server, timer, result });
    return { requestId, committed: result.promise };
  }

  openOf(server: ServerId): string[] {
    return [...this.open].filter(([, each]) => each.server === server).map(([id]) => id);
  }

  satisfied(requestId: string, pointId: string): void {
    const request = this.open.get(requestId);
    if (request === undefined) return;
    this.open.delete(requestId);
    request.timer.cancel();
    request.result.resolve(pointId);
  }

  stop(): void {
    for (const [, { timer, result }] of this.open) {
      timer.cancel();
      result.reject(new UnderstudyError('ERR_STAGING_STOPPING', 'staging is being stopped'));
    }
    this.open.clear();
  }
}
