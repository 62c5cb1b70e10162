/**
 * Work that a signal need not wait for: it only reads, so it may be left where it is and ends with the process.
 * Work that changes something is handed the signal instead, and ends in order.
 */

/** As `work`; rejects at once when `stop` is aborted. */
export function untilStopped<Result>(stop: AbortSignal, work: Promise<Result>): Promise<Result> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(stop.reason);
  if (stop.aborted) onAbort();
  else stop.addEventListener('abort', onAbort, { once: true });
  return Promise.race([work, stopped]).finally(() => stop.removeEventListener('abort', onAbort));
}
