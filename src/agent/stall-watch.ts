/**
 * Finds a peer that is alive (it answers pings) and gets nowhere: something is awaited of it, and for
 * minutes nothing but heartbeats has come. The session is given up then; whatever was lost is sent again.
 * Long enough for the first commit of a very large volume. Pure in time.
 */
const STALL_MS = 300_000;

export class StallWatch {
  private sinceMs = 0;

  /** The peer said something of substance, or nothing is awaited of it. */
  progress(nowMs: number): void {
    this.sinceMs = nowMs;
  }

  isStalled(nowMs: number): boolean {
    return nowMs - this.sinceMs > STALL_MS;
  }
}
