/**
 * Taking turns: whoever waits is in a lane, lanes are served one after the other, and within a lane the
 * first comes first. Pure but for the promises.
 */

interface Waiter {
  readonly go: () => void;
}

export class Turns {
  /** Lanes with waiters, the one to be served next first. */
  private readonly waiting: Waiter[][] = [];

  get isEmpty(): boolean {
    return this.waiting.length === 0;
  }

  /** A lane; it needs no closing. What it gives waits for one turn, or rejects with the signal's reason. */
  lane(): (stop: AbortSignal) => Promise<void> {
    const waiters: Waiter[] = [];
    return (stop) => this.wait(waiters, stop);
  }

  /** Lets the next one go; false where nobody waits. */
  next(): boolean {
    const waiters = this.waiting.shift();
    if (waiters === undefined) return false;
    const waiter = waiters.shift()!;
    if (waiters.length > 0) this.waiting.push(waiters);
    waiter.go();
    return true;
  }

  private wait(waiters: Waiter[], stop: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (stop.aborted) return reject(stop.reason);
      const leave = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        if (waiters.length === 0) this.waiting.splice(this.waiting.indexOf(waiters), 1);
        reject(stop.reason);
      };
      const go = () => {
        stop.removeEventListener('abort', leave);
        resolve();
      };
      const waiter: Waiter = { go };
      stop.addEventListener('abort', leave, { once: true });
      if (waiters.push(waiter) === 1) this.waiting.push(waiters);
    });
  }
}
