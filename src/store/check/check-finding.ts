/** What the parts of a check share: what they look at, how errors become findings, and how far they are. */
import { UnderstudyError } from '../../base/errors.ts';
import type { Core } from '../core.ts';
import type { Finding } from '../types.ts';

export type CheckCore = Pick<
  Core,
  | 'disk'
  | 'damage'
  | 'paths'
  | 'files'
  | 'packs'
  | 'index'
  | 'reader'
  | 'copies'
  | 'terms'
  | 'log'
  | 'randomBytes'
>;

/** Progress in objects, or in bytes of packs where data is read. */
export class Progress {
  private done = 0;
  private total = 0;
  private readonly report: (done: number, total: number) => void;

  constructor(report: ((done: number, total: number) => void) | undefined) {
    this.report = report ?? (() => undefined);
  }

  expect(count: number): void {
    this.total += count;
  }

  advance(count: number): void {
    this.done += count;
    this.report(this.done, Math.max(this.total, this.done));
  }
}

/** An error that a check met, as a finding. Errors that are no finding are thrown on. */
export function findingOf(error: unknown, object: string, points: readonly string[]): Finding {
  if (!(error instanceof UnderstudyError)) throw error;
  const kinds: Record<string, Finding['kind']> = {
    ERR_DISK_NOT_FOUND: 'missing-object',
    ERR_OBJECT_MISSING: 'missing-object',
    ERR_OBJECT_DAMAGED: 'damaged-object',
    ERR_ENTRIES_INVALID: 'damaged-object',
    ERR_DATA_FORMAT: 'damaged-object',
    ERR_DISK_IO: 'damaged-object',
    ERR_PIECE_MISSING: 'missing-piece',
    ERR_PIECE_DAMAGED: 'damaged-piece',
  };
  const kind = kinds[error.code];
  if (kind === undefined) throw error;
  const { digest } = error.context;
  const of = typeof digest === 'string' ? { digest } : {};
  return { kind, object, detail: error.message, points, ...of };
}
