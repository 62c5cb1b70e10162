/**
 * The thread on which SQLite runs: one call at a time, in order. Protocol with catalog-client.ts:
 * {id, method, args} in, {id, value} or {id, error} out; errors travel as {code, message, context}.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { UnderstudyError } from '../../base/errors.ts';
import { SqliteCatalog } from './catalog-sqlite.ts';

export interface CatalogCall {
  readonly id: number;
  readonly method: string;
  readonly args: unknown[];
}
export interface CatalogAnswer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { code: string; message: string; context: Record<string, unknown> };
}

const { path } = workerData as { path: string };
let catalog: SqliteCatalog | null = null;

function perform(method: string, args: unknown[]): unknown {
  if (method === 'open') {
    catalog = SqliteCatalog.open(path);
    return catalog.repository();
  }
  const target = catalog as unknown as Record<string, (...args: unknown[]) => unknown>;
  return target[method]!(...args);
}

function failure(error: unknown): NonNullable<CatalogAnswer['error']> {
  if (error instanceof UnderstudyError) {
    return { code: error.code, message: error.message, context: { ...error.context } };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'ERR_CATALOG', message: `catalog: ${message}`, context: { path } };
}

parentPort!.on('message', ({ id, method, args }: CatalogCall) => {
  let answer: CatalogAnswer;
  try {
    answer = { id, value: perform(method, args) };
  } catch (error) {
    answer = { id, error: failure(error) };
  }
  parentPort!.postMessage(answer);
});
