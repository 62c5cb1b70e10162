/** The SQLite catalog as the store sees it: every call is a message to the worker thread. */
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { type ErrorCode, type ErrorContext, UnderstudyError } from '../../base/errors.ts';
import type { PointState } from '../../model/replication.ts';
import type { PointRecord } from '../points/point-format.ts';
import type { PointFilter } from '../types.ts';
import type { Catalog, CatalogCounts, CatalogPoint, VolumeHead } from './catalog.ts';
import type { CatalogAnswer, CatalogCall } from './catalog-worker.ts';

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class CatalogClient implements Catalog {
  private readonly path: string;
  private worker: Worker | null = null;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;

  /** `path`: the database file. Its folder must be there. */
  constructor(path: string) {
    this.path = path;
  }

  async open(): Promise<string | null> {
    const script = new URL(`./catalog-worker${extname(import.meta.filename)}`, import.meta.url);
    const worker = new Worker(script, {
      workerData: { path: this.path },
      execArgv: ['--disable-warning=ExperimentalWarning'],
    });
    worker.on('message', (answer: CatalogAnswer) => this.answered(answer));
    worker.on('error', (error) => this.died(error));
    this.worker = worker;
    try {
      return (await this.call('open')) as string | null;
    } catch (error) {
      await this.terminate();
      throw error;
    }
  }

  async adopt(repository: string): Promise<void> {
    await this.call('adopt', repository);
  }

  async pointNames(): Promise<{ server: string; id: string; state: PointState }[]> {
    return (await this.call('pointNames')) as Awaited<ReturnType<Catalog['pointNames']>>;
  }

  async putPoint(record: PointRecord, state: PointState): Promise<void> {
    await this.call('putPoint', record, state);
  }

  async setSealed(ids: readonly string[]): Promise<void> {
    await this.call('setSealed', ids);
  }

  async removePoints(ids: readonly string[]): Promise<void> {
    await this.call('removePoints', ids);
  }

  async point(id: string): Promise<CatalogPoint | null> {
    return (await this.call('point', id)) as CatalogPoint | null;
  }

  async points(filter: PointFilter): Promise<CatalogPoint[]> {
    return (await this.call('points', filter)) as CatalogPoint[];
  }

  async heads(): Promise<VolumeHead[]> {
    return (await this.call('heads')) as VolumeHead[];
  }

  async putHead(head: VolumeHead): Promise<void> {
    await this.call('putHead', head);
  }

  async counts(): Promise<CatalogCounts> {
    return (await this.call('counts')) as CatalogCounts;
  }

  async close(): Promise<void> {
    if (this.worker === null) return;
    await this.call('close');
    await this.terminate();
  }

  private call(method: string, ...args: unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const { worker } = this;
      if (worker === null) return reject(new UnderstudyError('ERR_CATALOG', 'catalog: not open'));
      const id = this.nextId;
      this.nextId += 1;
      this.pending.set(id, { resolve, reject });
      const call: CatalogCall = { id, method, args };
      worker.postMessage(call);
    });
  }

  private answered({ id, value, error }: CatalogAnswer): void {
    const pending = this.pending.get(id);
    this.pending.delete(id);
    if (error === undefined) pending?.resolve(value);
    else pending?.reject(rebuilt(error));
  }

  private died(cause: Error): void {
    this.worker = null;
    const error = new UnderstudyError('ERR_CATALOG', `catalog: ${cause.message}`, {}, cause);
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }

  private async terminate(): Promise<void> {
    const { worker } = this;
    this.worker = null;
    await worker?.terminate();
  }
}

const rebuilt = ({ code, message, context }: NonNullable<CatalogAnswer['error']>) =>
  new UnderstudyError(code as ErrorCode, message, context as ErrorContext);
