/**
 * From what the operator gave and what format.json says to the vault that the store works with. What does
 * not fit together is refused here, before anything is changed.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Format } from '../format/format.ts';
import type { Paths } from '../format/layout.ts';
import type { NamesMode } from '../format/names.ts';
import type { Aead } from './aead.ts';
import type { KeyWorld } from './key-files.ts';
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
