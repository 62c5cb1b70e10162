/**
 * Time and timers behind one small interface, so that the same agent and staging logic runs under the
 * real clock and under the simulator's virtual one. Nothing above `base` calls Date.now or setTimeout.
 */

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall-clock time, milliseconds since the epoch (may leap). */
  wallMs(): number;
  /** Monotonic time in milliseconds, from an arbitrary origin. */
  monotonicMs(): number;
  /** Calls `run` once after `delayMs`; the timer does not keep the process alive by itself. */
  after(delayMs: number, run: () => void): Timer;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, run) {
    const handle = setTimeout(run, delayMs);
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};

/** Resolves after `delayMs` of the given clock. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}

/** Keeps the process alive, whose timers do not, until the returned function is called. */
export function holdProcess(): () => void {
  const handle = setInterval(() => undefined, 2 ** 30);
  return () => clearInterval(handle);
}
