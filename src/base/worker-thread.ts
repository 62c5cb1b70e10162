/**
 * Ends worker threads. One that is ended while it still loads its modules may take the whole process with it
 * (Node 24: "Check failed: (location_) != nullptr", SIGTRAP; some in a hundred), so a worker says when it has
 * loaded, and is ended after that.
 */
import { parentPort, type Worker } from 'node:worker_threads';

const LOADED = 'loaded';

/** The worker's last word while it loads: what comes before may not be ended. */
export function tellLoaded(): void {
  parentPort?.postMessage(LOADED);
}

export interface WorkerEnd {
  /** What the worker says, but for `tellLoaded`. */
  onMessage<Message>(handle: (message: Message) => void): void;
  /** Resolves once it has ended. */
  end(): Promise<void>;
}

/** To be called at once, before the worker can have said anything. It must call `tellLoaded`. */
export function endable(worker: Worker): WorkerEnd {
  const loaded = Promise.withResolvers<void>();
  worker.on('message', (message: unknown) => {
    if (message === LOADED) loaded.resolve();
  });
  // One that has ended by itself has nothing to wait for.
  worker.on('error', () => loaded.resolve());
  worker.on('exit', () => loaded.resolve());
  return {
    onMessage: <Message>(handle: (message: Message) => void) =>
      void worker.on('message', (message: unknown) => {
        if (message !== LOADED) handle(message as Message);
      }),
    async end() {
      // An unref'd worker alone does not keep the process waiting for its word.
      worker.ref();
      await loaded.promise;
      await worker.terminate();
    },
  };
}
