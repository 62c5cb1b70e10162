/**
 * Options that name the master key of an encrypted repository, and the master key that they mean. At most
 * one of them is given. A passphrase is never an argument, which others on the machine could see: it comes
 * from a file, or from UNDERSTUDY_PASSPHRASE.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { MasterKey } from '../store/keys/master.ts';
import type { KeyOptions } from '../store/keys/open-vault.ts';
import type { OptionSpec } from './option.ts';
import type { Settings } from './settings.ts';

/** Where the environment may hold the passphrase. */
export const PASSPHRASE = 'UNDERSTUDY_PASSPHRASE';

const kinds = [
  {
    name: 'key-file',
    value: 'FILE',
    describe: 'Key file of the encrypted repository (repo key create makes one)',
  },
  {
    name: 'passphrase-file',
    value: 'FILE',
    describe: `File with the passphrase of the encrypted repository (or ${PASSPHRASE})`,
  },
  {
    name: 'kms-key',
    value: 'KEY',
    describe: 'AWS KMS key of the encrypted repository: ARN, id or alias/NAME (AWS_* as usual)',
  },
] as const;

/** With another `prefix` for another repository: `to-key-file`. */
export const keyOptionsOf = (prefix: string, of: string): readonly OptionSpec[] =>
  kinds.map(({ name, value, describe }) => ({
    ...{ name: `${prefix}${name}`, type: 'text' as const, value },
    describe: `${of}${describe}`,
  }));

export const keyOptions = keyOptionsOf('', '');

/** The master key that was named; undefined where none was. ERR_USAGE, ERR_KEY_FILE, ERR_DISK_*. */
export async function masterOf(
  settings: Settings,
  prefix = '',
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<MasterKey | undefined> {
  const given = kinds.filter(({ name }) => settings.optionalText(prefix + name) !== undefined);
  if (given.length > 1) {
    const names = given.map(({ name }) => `--${prefix}${name}`).join(' and ');
    throw new UnderstudyError('ERR_USAGE', `${names}: give one of them`);
  }
  const [only] = given;
  const passphrase = prefix === '' ? environment[PASSPHRASE] : undefined;
  if (only === undefined && (passphrase === undefined || passphrase === '')) return undefined;
  if (only?.name === 'kms-key') {
    const { kmsMaster } = await import('../store/keys/kms.ts');
    return kmsMaster(settings.text(`${prefix}kms-key`));
  }
  const files = await import('../store/keys/key-file.ts');
  if (only === undefined) return files.passphraseOf(passphrase!, PASSPHRASE);
  const path = settings.text(prefix + only.name);
  return only.name === 'key-file' ? files.readKeyFile(path) : files.readPassphraseFile(path);
}

/** The same as options of a store or a reader, to be spread. */
export async function keysOf(settings: Settings, prefix = ''): Promise<{ keys?: KeyOptions }> {
  const master = await masterOf(settings, prefix);
  return master === undefined ? {} : { keys: { master } };
}
