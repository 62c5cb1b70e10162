/**
 * The simulated staging service: the real store over the faulty disk, the real session for each
 * connection. Can be killed, lose its power, run out of disk, and be started again.
 */
import { UnderstudyError } from '../../src/base/errors.ts';
import type { Log } from '../../src/base/log.ts';
import { Session, type SessionHost } from '../../src/staging/session.ts';
import { inlineVerifier } from '../../src/staging/verifier.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import type { Connection, ConnectionHandlers } from '../../src/transport/types.ts';
import type { FaultyDisk } from './disk.ts';
import type { SimulatedNetwork } from './network.ts';
import { ProcessClock } from './process-clock.ts';
import type { Random } from './random.ts';
import type { VirtualClock } from './virtual-clock.ts';

const LIMITS = {
  windowBytes: 512 * 1024,
  unansweredOffers: 8,
  incompleteOffers: 8,
  waitingBatches: 8,
};

export interface StagingOptions {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly network: SimulatedNetwork;
  readonly disk: FaultyDisk;
  readonly log: Log;
}

export class StagingHost {
  store: Store | null = null;
  /** Why the service stopped by itself, or could not start. */
  failure: unknown = null;
  private readonly options: StagingOptions;
  private process: ProcessClock | null = null;
  private current: Session | null = null;
  private sessions = 0;

  constructor(options: StagingOptions) {
    this.options = options;
  }

  get isRunning(): boolean {
    return this.store !== null;
  }

  async start(): Promise<void> {
    const { clock, random, disk, log, network } = this.options;
    const process = new ProcessClock(clock);
    this.process = process;
    this.failure = null;
    try {
      const fork = random.fork();
      const store = await openStore({
        disk: disk.mount(),
        clock: process,
        randomBytes: (count) => fork.bytes(count),
        root: '/data',
        catalog: new MemoryCatalog(),
        log,
        settings: { segmentBytes: 256 * 1024, sealAfterMs: 3000, retryMs: 500 },
      });
      if (this.process !== process) return;
      this.store = store;
      store.watchRescans(() =>
        this.current?.end(new UnderstudyError('ERR_RESCAN_DEMANDED', 'damaged here')),
      );
      network.acceptor = (connection) => this.accept(connection);
    } catch (error) {
      this.failure = error;
    }
  }

  /** kill -9. */
  kill(): void {
    this.options.network.killStaging();
    this.options.network.acceptor = null;
    this.process?.kill();
    this.process = null;
    this.options.disk.kill();
    this.store = null;
    this.current = null;
  }

  powerCut(): void {
    this.kill();
    this.options.disk.powerCut(() => this.options.random.next());
  }

  requestPoint(id: string): void {
    this.current?.requestCut(id);
  }

  private accept(connection: Connection): ConnectionHandlers {
    let handlers!: ConnectionHandlers;
    new Session(
      {
        clock: this.process!,
        log: this.options.log,
        verifier: inlineVerifier,
        host: this.host(this.store!),
        limits: LIMITS,
        version: 'simulated',
      },
      (given) => {
        handlers = given;
        return connection;
      },
    );
    return handlers;
  }

  /** A newer session of the server takes the place of the older one, as the service has it. */
  private host(store: Store): SessionHost {
    return {
      open: async (session, hello) => {
        const former = this.current;
        this.current = session;
        if (former !== null) {
          former.end(new UnderstudyError('ERR_SESSION_REPLACED', 'a newer session'));
          await former.ended;
        }
        const ingest = await store.beginIngest(hello.server, hello.volumes);
        this.sessions += 1;
        return { ingest, sessionId: `${this.sessions}` };
      },
      opened: () => undefined,
      received: () => undefined,
      deduped: () => undefined,
      reported: () => undefined,
      examined: () => undefined,
      committed: () => undefined,
      closed: (session) => {
        if (this.current === session) this.current = null;
      },
      broken: (error) => {
        if (this.store !== store) return;
        this.kill();
        this.failure = error;
      },
    };
  }
}
