/** What a check of a damaged directory tells, in a form that can be written down and compared. */
import { join } from 'node:path';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { openRepository } from '../../src/store/offline.ts';
import type { Finding } from '../../src/store/types.ts';

export interface Verdict {
  /** Code of the error with which the directory is refused. */
  readonly refused?: string;
  readonly findings: readonly Pick<Finding, 'kind' | 'object' | 'points' | 'digest'>[];
  /** Points that some finding hurts. */
  readonly hurt: readonly string[];
}

/** Paths count from `folder`. */
export async function lookAt(folder: string): Promise<Verdict> {
  try {
    const repository = await openRepository(folder, silentLog);
    const { findings } = await repository.check({ readData: true });
    await repository.close();
    const told = findings.map(({ kind, object, points, digest }) => ({
      kind,
      object: object.startsWith(folder) ? object.slice(folder.length + 1) : object,
      points: [...points].sort(),
      ...(digest === undefined ? {} : { digest }),
    }));
    const key = ({ kind, object, digest = '' }: (typeof told)[number]) => kind + object + digest;
    told.sort((a, b) => (key(a) < key(b) ? -1 : 1));
    return { findings: told, hurt: [...new Set(told.flatMap(({ points }) => points))].sort() };
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    return { refused: error.code, findings: [], hurt: [] };
  }
}

export const fixtures = join(import.meta.dirname, '../fixtures/damaged');
