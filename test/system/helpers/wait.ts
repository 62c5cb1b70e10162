/** Waiting by looking again, never by a fixed pause; what never comes says what it was. */

export const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

export async function waitFor(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  options: { timeoutMs: number; everyMs?: number },
): Promise<void> {
  const endMs = performance.now() + options.timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > endMs) {
      throw new Error(`waited ${options.timeoutMs} ms in vain for ${what}`);
    }
    await pause(options.everyMs ?? 100);
  }
}

/** The count of the full run, or of the scaled one. */
export const scaled = (scaledCount: number, fullCount: number): number =>
  process.env.TEST_FULL === '1' ? fullCount : scaledCount;
