/**
 * Contents that are being written to the journal right now. Two servers that send the same content at
 * once must not both store it: the second waits for the first, and then finds it. Whoever waits holds
 * nothing, so nobody waits in a circle.
 */
export class Reservations {
  private readonly held = new Map<string, Promise<void>>();

  /** What must end before all of `names` (hex digests) are free. */
  waiting(names: readonly string[]): Promise<void>[] {
    return names.map((name) => this.held.get(name)).filter((wait) => wait !== undefined);
  }

  /** Holds free names until the function is called. */
  reserve(names: readonly string[]): () => void {
    let end: () => void = () => undefined;
    const wait = new Promise<void>((resolve) => {
      end = resolve;
    });
    for (const name of names) this.held.set(name, wait);
    return () => {
      for (const name of names) this.held.delete(name);
      end();
    };
  }
}
