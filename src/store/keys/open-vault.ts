/**
 * From what the operator gave and what format.json says to the vault that the store works with. What does
 * not fit together is refused here, before anything is changed.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Format } from '../format/format.ts';
import type { Paths } from '../format/layout.ts';
import type { NamesMode } from '../format/names.ts';
import { damaged, isDamage } from '../format/object-header.ts';
import type { Aead } from './aead.ts';
import { type KeyWorld, repositoriesOf } from './key-files.ts';
import type { MasterKey } from './master.ts';
import { RepositoryKeys } from './repository-keys.ts';
import { plainVault, SealedVault, type Vault } from './vault.ts';

export interface KeyOptions {
  readonly master: MasterKey;
  /** Of a repository that is made now: how it names contents, and the name key of its source. */
  readonly names?: NamesMode;
  readonly nameKey?: Uint8Array;
  /** In the place of AES-256-GCM, for tests. */
  readonly aead?: Aead;
}

export interface VaultWorld {
  readonly disk: Disk;
  readonly paths: Pick<Paths, 'keys' | 'temporary' | 'repo'>;
  readonly randomBytes: (count: number) => Uint8Array;
  readonly nowMs: number;
}

const keyWorld = (world: VaultWorld, { master, aead }: KeyOptions): KeyWorld => ({
  ...{ disk: world.disk, paths: world.paths, randomBytes: world.randomBytes },
  ...{ nowMs: world.nowMs, master, ...(aead && { aead }) },
});

/** ERR_KEY_REQUIRED, ERR_KEY_NOT_ENCRYPTED, and what RepositoryKeys.load throws. */
export async function openVault(
  world: VaultWorld,
  format: Format,
  options: KeyOptions | undefined,
): Promise<Vault> {
  const { repo: path } = world.paths;
  if (format.encryption === null) {
    if (options === undefined) return plainVault;
    const message = `${path}: the repository is not encrypted, and a key was given`;
    throw new UnderstudyError('ERR_KEY_NOT_ENCRYPTED', message, { path });
  }
  if (options === undefined) {
    const message = `${path}: the repository is encrypted, and no key was given`;
    throw new UnderstudyError('ERR_KEY_REQUIRED', message, { path });
  }
  const keys = await RepositoryKeys.load(keyWorld(world, options), format);
  return new SealedVault(keys.names, keys, options.aead);
}

/**
 * What format.json of an encrypted repository says, from its keys: identity and names are bound into them.
 * ERR_KEY_WRONG, ERR_KEY_DENIED, ERR_KEY_UNAVAILABLE, ERR_OBJECT_DAMAGED where no name key is right.
 */
export async function formatOfKeys(world: VaultWorld, options: KeyOptions): Promise<Format> {
  const failed: UnderstudyError[] = [];
  for (const id of await repositoriesOf(world)) {
    try {
      const names = await RepositoryKeys.namesOf(keyWorld(world, options), id);
      return { id, encryption: { names } };
    } catch (error) {
      // An object that was changed may name another repository.
      const isNotIt = error instanceof UnderstudyError && (isDamage(error) || isWrong(error));
      if (!isNotIt) throw error;
      failed.push(error);
    }
  }
  throw failed[0] ?? damaged(world.paths.keys, 'there is no key object that can be read');
}

const isWrong = ({ code }: UnderstudyError): boolean => code === 'ERR_KEY_WRONG';

/** Keys for a repository that is made now. */
export async function createVault(
  world: VaultWorld,
  repository: string,
  options: KeyOptions,
): Promise<{ vault: Vault; format: Format }> {
  if (options === undefined)
    return { vault: plainVault, format: { id: repository, encryption: null } };
  const { names = 'hmac-sha-256', nameKey } = options;
  const keys = await RepositoryKeys.create(keyWorld(world, options), repository, names, nameKey);
  const vault = new SealedVault(keys.names, keys, options.aead);
  return { vault, format: { id: repository, encryption: { names } } };
}
