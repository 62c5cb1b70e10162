/**
 * A client for work that goes on for long: what fails because the service is away (it is started again, the
 * network is cut) is asked again, for a while. Only for calls that may be repeated.
 */
import { sleep } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { CommandContext } from './command.ts';
import type { RestClient } from './rest-client.ts';

const RETRY_MS = 2000;
/** How long the service may be away. */
const PATIENCE_MS = 15 * 60_000;

export function patientClient(context: CommandContext, client: RestClient): RestClient {
  const { clock, stop } = context;
  const patiently = async <T>(ask: () => Promise<T>): Promise<T> => {
    const untilMs = clock.monotonicMs() + PATIENCE_MS;
    for (let isTold = false; ; isTold = true) {
      try {
        return await ask();
      } catch (error) {
        stop.throwIfAborted();
        const isPassing = error instanceof UnderstudyError && error.spec.retryable;
        if (!isPassing || clock.monotonicMs() > untilMs) throw error;
        if (!isTold) context.note(`${error.message}: asked again until it answers`);
        await sleep(clock, RETRY_MS);
      }
    }
  };
  return {
    url: client.url,
    call: (method, path, options) => patiently(() => client.call(method, path, options)),
    range: (path, offset, length, etag) =>
      patiently(() => client.range(path, offset, length, etag)),
    head: (path) => patiently(() => client.head(path)),
  };
}
