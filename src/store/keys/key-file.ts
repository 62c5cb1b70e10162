/**
 * A key file: 32 random bytes in base64 behind a line that says what it is. Made once, 0600, never written
 * over; one that others may read is refused. Whoever loses it, and has no other master for the repository,
 * has lost the repository.
 */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError } from '../../base/node-disk.ts';
import { createSecretFile } from '../../base/secret-file.ts';
import { KEY_BYTES } from './aead.ts';
import { fileKeyId, fileMaster, type MasterKey, passphraseMaster } from './master.ts';

const FIRST_LINE = 'understudy key file 1';

const refused = (path: string, detail: string): UnderstudyError =>
  new UnderstudyError('ERR_KEY_FILE', `${path}: ${detail}`, { path });

/** Makes a key file, durably. Returns the key's id. ERR_DISK_EXISTS where the name is taken. */
export async function createKeyFile(path: string): Promise<string> {
  const key = new Uint8Array(randomBytes(KEY_BYTES));
  const text = `${FIRST_LINE}\n${Buffer.from(key).toString('base64')}\n`;
  await createSecretFile(path, text);
  return fileKeyId(key);
}

/** Text of a file that nobody but its owner may read. ERR_KEY_FILE, ERR_DISK_*. */
async function readSecret(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { mode } = await file.stat();
      if ((mode & 0o077) !== 0) throw refused(path, 'others may read it: chmod 600');
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    throw diskError(error, path);
  }
}

/** ERR_KEY_FILE, ERR_DISK_NOT_FOUND, ERR_DISK_PERMISSION. */
export async function readKeyFile(path: string): Promise<MasterKey> {
  const [first, second, ...rest] = (await readSecret(path)).split('\n');
  const key = Buffer.from(second ?? '', 'base64');
  const isWhole = rest.join('') === '' && key.toString('base64') === second;
  if (first !== FIRST_LINE || key.length !== KEY_BYTES || !isWhole) {
    throw refused(path, 'not a key file');
  }
  return fileMaster(new Uint8Array(key), `key file ${path}`);
}

export const passphraseOf = (passphrase: string, name: string): MasterKey =>
  passphraseMaster(passphrase, `the passphrase in ${name}`);

/** The first line of the file is the passphrase. ERR_KEY_FILE, ERR_DISK_*. */
export async function readPassphraseFile(path: string): Promise<MasterKey> {
  const [passphrase = ''] = (await readSecret(path)).split(/\r?\n/);
  return passphraseOf(passphrase, path);
}
