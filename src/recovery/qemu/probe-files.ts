/**
 * Keys and passwords of probes: files of a folder of the staging machine that only its operator writes to.
 * What asks for a probe names a file of it; no secret comes by the command line, the API or a job.
 */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { plain } from '../plain-text.ts';

const MAX_PASSWORD = 200;

const refuse = (message: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_OPTIONS', message, {}, cause);

/** The path of a file that only its owner may read. ERR_LAUNCH_OPTIONS. */
export async function probeFile(name: string, folder: string | null): Promise<string> {
  if (folder === null) throw refuse('this service has no folder for keys of probes');
  const path = join(folder, name);
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw refuse(`${path} cannot be used: ${cause.code}`, cause);
  });
  if (!found.isFile()) throw refuse(`${path} is no file`);
  if ((found.mode & 0o077) !== 0) throw refuse(`${path} can be read by others: chmod 600`);
  return path;
}

/** Its first and only line. ERR_LAUNCH_OPTIONS. */
export async function probePassword(name: string, folder: string | null): Promise<string> {
  const path = await probeFile(name, folder);
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw refuse(`${path} cannot be read: ${cause.code}`, cause);
  });
  const password = text.replace(/\r?\n$/, '');
  const isOne = password !== '' && password.length <= MAX_PASSWORD && plain(password) === password;
  if (isOne) return password;
  throw refuse(`${path} is not one line with a password of at most ${MAX_PASSWORD} characters`);
}
