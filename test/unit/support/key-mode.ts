/**
 * The tests of the store run twice: over plain repositories, and (project `encrypted`) over encrypted ones.
 * There every seal is watched: one key and one nonce with two contents is an error, in whatever life,
 * after whatever crash. That must never happen; AES-GCM has no protection left where it does.
 */
import { createHash } from 'node:crypto';
import type { Disk } from '../../../src/base/disk.ts';
import { readFormatObject } from '../../../src/store/format/format.ts';
import { paths as pathsOf } from '../../../src/store/format/layout.ts';
import { type Aead, aesGcm } from '../../../src/store/keys/aead.ts';
import { fileMaster } from '../../../src/store/keys/master.ts';
import { type KeyOptions, openVault } from '../../../src/store/keys/open-vault.ts';
import { sealedDisk } from '../../../src/store/keys/sealed-disk.ts';
import { plainVault } from '../../../src/store/keys/vault.ts';
import { FileCache } from '../../../src/store/packs/file-cache.ts';

export const isEncrypted = process.env.TEST_ENCRYPTED === '1';

export class NonceWatch implements Aead {
  private readonly seen = new Map<string, string>();
  seals = 0;

  seal(key: Uint8Array, nonce: Uint8Array, bound: Uint8Array, plain: Uint8Array) {
    const use = `${Buffer.from(key).toString('base64')} ${Buffer.from(nonce).toString('hex')}`;
    const what = createHash('sha256').update(bound).update(plain).digest('base64');
    const known = this.seen.get(use);
    this.seals += 1;
    if (known !== undefined && known !== what) throw new Error(`a nonce comes twice: ${use}`);
    this.seen.set(use, what);
    return aesGcm.seal(key, nonce, bound, plain);
  }

  open(key: Uint8Array, nonce: Uint8Array, bound: Uint8Array, sealed: Uint8Array) {
    return aesGcm.open(key, nonce, bound, sealed);
  }

  /** Another world begins: tests choose ids and salts by seeds, and so choose them again. */
  forget(): void {
    this.seen.clear();
  }
}

export const nonceWatch = new NonceWatch();

export const testMaster = fileMaster(new Uint8Array(32).fill(7), 'the key of the tests');

export const keys: KeyOptions | undefined = isEncrypted
  ? { master: testMaster, aead: nonceWatch }
  : undefined;

/** Where what a disk holds below /data can be read, whichever kind of repository it is. */
export async function readingFiles(disk: Disk): Promise<FileCache> {
  const paths = pathsOf('/data');
  const format = await readFormatObject(disk, paths);
  const randomBytes = (count: number) => new Uint8Array(count);
  const world = { disk, paths, randomBytes, nowMs: 0 };
  const vault = format === null ? plainVault : await openVault(world, format, keys);
  return new FileCache(sealedDisk(disk, vault, paths, randomBytes), undefined, vault);
}

/**
 * With a watch of its own, for a life that chooses ids and salts by a seed: another one with the same
 * seed chooses the same, and the former one may not be quite over.
 */
export const keysOfOwn = (): { keys?: KeyOptions } =>
  isEncrypted ? { keys: { master: testMaster, aead: new NonceWatch() } } : {};

/** To be spread into the options of a store. */
export const withKeys: { keys?: KeyOptions } = keys === undefined ? {} : { keys };
