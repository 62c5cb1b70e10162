/**
 * How a repository names what it holds: contents, owners, grants, and the folders of servers and volumes.
 * In a plain repository names are SHA-256 and the servers' own names. In an encrypted one they are keyed
 * (HMAC-SHA-256 under the name key, which never changes), so that whoever reads the bucket can neither
 * recognise a content that he knows nor read a server's name off a folder (P8).
 *
 * The agent's digests are turned into names where they enter the store (ingest.ts); all that lies deeper
 * knows names only, and a piece is right where its content has its name.
 */
import { createHmac } from 'node:crypto';
import { assert } from '../../base/errors.ts';
import { DIGEST_BYTES } from '../../model/geometry.ts';
import { sha256, toHex } from './checksum.ts';

/** How contents are named: keyed, or, in a copy of a plain repository, by SHA-256 as there. */
export type NamesMode = 'hmac-sha-256' | 'sha-256';

export interface Names {
  /** How contents are named. */
  readonly mode: NamesMode;
  /** The name of the content with this SHA-256. */
  ofDigest(digest: Uint8Array): Uint8Array;
  ofContent(content: Uint8Array): Uint8Array;
  /** 8 bytes that stand for a server in heads of pieces. */
  ownerTag(server: string): Uint8Array;
  /** The name of the note that `owner` has sent the content named `name` too (grant.ts). */
  grant(owner: Uint8Array, name: Uint8Array): Uint8Array;
  serverFolder(server: string): string;
  volumeFolder(server: string, volume: string): string;
}

const GRANT = Buffer.from('understudy grant\n');
const OWNER_BYTES = 8;
const FOLDER_DIGITS = 32;

const folderOf = (bytes: Uint8Array): string => toHex(bytes).slice(0, FOLDER_DIGITS);

export const plainNames: Names = {
  mode: 'sha-256',
  ofDigest: (digest) => digest,
  ofContent: sha256,
  ownerTag: (server) => sha256(Buffer.from(server, 'utf8')).subarray(0, OWNER_BYTES),
  grant: (owner, name) => sha256(Buffer.concat([GRANT, owner, name])),
  serverFolder: (server) => server,
  // A volume's own name may hold slashes.
  volumeFolder: (_server, volume) => folderOf(sha256(Buffer.from(volume, 'utf8'))),
};

const HMAC_BLOCK_BYTES = 64;

/**
 * HMAC-SHA-256 of digests, as RFC 2104 has it, by two one-shot hashes: each piece that arrives is named
 * twice, and this takes a fraction of what a Hmac object does.
 */
function digestMac(key: Uint8Array): (digest: Uint8Array) => Uint8Array {
  const padded = (pad: number): Uint8Array =>
    new Uint8Array(HMAC_BLOCK_BYTES + DIGEST_BYTES).map((_, i) =>
      i < HMAC_BLOCK_BYTES ? (key[i] ?? 0) ^ pad : 0,
    );
  const inner = padded(0x36);
  const outer = padded(0x5c);
  return (digest) => {
    assert(digest.length === DIGEST_BYTES, 'a digest has 32 bytes');
    inner.set(digest, HMAC_BLOCK_BYTES);
    outer.set(sha256(inner), HMAC_BLOCK_BYTES);
    return sha256(outer);
  };
}

/** `key`: the name key, 32 bytes. */
export function keyedNames(key: Uint8Array): Names {
  const named = digestMac(key);
  const mac = (...parts: (Uint8Array | string)[]): Uint8Array => {
    const hmac = createHmac('sha256', key);
    for (const part of parts) hmac.update(part);
    return hmac.digest();
  };
  return {
    mode: 'hmac-sha-256',
    ofDigest: named,
    ofContent: (content) => named(sha256(content)),
    ownerTag: (server) => mac('understudy owner\n', server).subarray(0, OWNER_BYTES),
    grant: (owner, name) => mac(GRANT, owner, name),
    serverFolder: (server) => folderOf(mac('understudy server\n', server)),
    volumeFolder: (server, volume) => folderOf(mac(`understudy volume\n${server}\n`, volume)),
  };
}

/**
 * Of an encrypted copy of a plain repository: contents, owners and grants keep the names that the copied
 * maps and packs give them; only the folders are keyed.
 */
export function keyedFolders(key: Uint8Array): Names {
  const { serverFolder, volumeFolder } = keyedNames(key);
  return { ...plainNames, serverFolder, volumeFolder };
}
