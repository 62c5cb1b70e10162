/**
 * Which repository a journal belongs to: its identity, in a file beside the segments. Journal and repository
 * may lie in different places, and what one repository's journal holds must not be sealed into another.
 * A journal without the file (one made before there was such a file) belongs to the repository it is with.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { type Core, temporaryPath } from '../core.ts';
import { writeObject } from '../format/object-file.ts';

type OwnerCore = Pick<Core, 'disk' | 'paths'>;

async function read({ disk, paths }: OwnerCore): Promise<string | null> {
  if (!(await disk.exists(paths.owner))) return null;
  return Buffer.from(await disk.readFile(paths.owner))
    .toString('utf8')
    .trim();
}

/** `id`: the repository's, null where there is none. ERR_DATA_FORMAT where the journal is of another one. */
export async function assertOf(core: OwnerCore, id: string | null): Promise<void> {
  const owner = await read(core);
  if (owner === null || owner === id) return;
  const { owner: path, repo } = core.paths;
  const found = id === null ? 'has none' : `has ${id}`;
  const message = `${path}: the journal belongs to the repository ${owner}, and ${repo} ${found}`;
  throw new UnderstudyError('ERR_DATA_FORMAT', message, { path });
}

/** Durable once it resolves. */
export async function write(core: Core, id: string): Promise<void> {
  if ((await read(core)) === id) return;
  const bytes = Buffer.from(`${id}\n`);
  // By this name it is not sealed: it tells a journal of another repository, which has other keys.
  const temporary = `${temporaryPath(core)}.json`;
  await writeObject(core.disk, temporary, core.paths.owner, [bytes]);
}
