/** The keys of a repository that nothing else of is opened: for commands that list, rotate and add keys. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { readFormatObject } from '../format/format.ts';
import { paths as pathsOf } from '../format/layout.ts';
import type { Place } from '../place.ts';
import { listKeyObjects, type StoredKey } from './key-files.ts';
import type { MasterKey } from './master.ts';
import { RepositoryKeys } from './repository-keys.ts';

interface KeysOfPlace {
  readonly repository: string;
  readonly objects: readonly StoredKey[];
  readonly damage: readonly UnderstudyError[];
  /** ERR_KEY_REQUIRED without a master key, ERR_KEY_WRONG, ERR_KEY_DENIED, ERR_KEY_UNAVAILABLE. */
  open(): Promise<RepositoryKeys>;
}

/** ERR_DATA_FORMAT where there is no repository, ERR_KEY_NOT_ENCRYPTED where it has no keys. */
export async function openKeys(
  { disk, repo: given, objects }: Pick<Place, 'disk' | 'repo' | 'objects'>,
  master: MasterKey | undefined,
  randomBytes: (count: number) => Uint8Array,
  nowMs: number,
): Promise<KeysOfPlace> {
  const isData = objects === null && (await disk.exists(`${given}/repo/format.json`));
  // Beside a repository alone there is no journal: what has no name yet lies among the keys' own.
  const repo = isData ? `${given}/repo` : given;
  const temporary = objects === null ? `${repo}/keys` : join(tmpdir(), 'understudy-keys');
  const paths = { ...pathsOf(given, repo), temporary };
  const format = await readFormatObject(disk, paths);
  if (format === null) {
    const message = `${given}: neither a data directory nor a repository`;
    throw new UnderstudyError('ERR_DATA_FORMAT', message, { path: given });
  }
  if (format.encryption === null) {
    const message = `${repo}: the repository is not encrypted`;
    throw new UnderstudyError('ERR_KEY_NOT_ENCRYPTED', message, { path: repo });
  }
  const damage: UnderstudyError[] = [];
  const found = await listKeyObjects({ disk, paths }, format.id, (error) => damage.push(error));
  return {
    ...{ repository: format.id, objects: found, damage },
    async open() {
      if (master !== undefined) {
        return RepositoryKeys.load({ disk, paths, master, randomBytes, nowMs }, format);
      }
      const message = `${repo}: give the key that opens the repository now`;
      throw new UnderstudyError('ERR_KEY_REQUIRED', message, { path: repo });
    },
  };
}
