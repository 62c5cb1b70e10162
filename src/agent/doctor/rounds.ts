/**
 * Has the machine looked at when the agent starts and every few hours, as kernels and configurations
 * change, and tells what was found. A look that fails is logged; replication does not depend on it.
 */
import type { Clock, Timer } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { MachineReport } from '../../model/machine.ts';

export const ROUND_MS = 6 * 3600_000;

export interface RoundsOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly look: (timeMs: number) => Promise<MachineReport>;
  readonly tell: (report: MachineReport) => void;
}

/** Looks at once. `stop` resolves when nothing is looked at any more. */
export function startRounds({ clock, log, look, tell }: RoundsOptions): {
  stop(): Promise<void>;
} {
  let timer: Timer | null = null;
  let isStopped = false;
  const round = async () => {
    try {
      const report = await look(clock.wallMs());
      if (!isStopped) tell(report);
    } catch (error) {
      log.error('the doctor failed', { error: (error as Error).message });
    }
    if (!isStopped) timer = clock.after(ROUND_MS, begin);
  };
  let running = Promise.resolve();
  const begin = () => {
    running = round();
  };
  begin();
  return {
    async stop() {
      isStopped = true;
      timer?.cancel();
      await running;
    },
  };
}
