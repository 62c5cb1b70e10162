/**
 * `format.json`: what a repository is, and whether it is encrypted. Version 1 is plain; version 2 is
 * encrypted. It is clear text, so nothing is believed of it that the keys do not confirm: how contents are
 * named is bound into the name key, and whether there must be keys is what the operator says.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { CHUNK_BYTES, CHUNKS_PER_LEAF } from '../../model/geometry.ts';
import type { Paths } from './layout.ts';
import type { NamesMode } from './names.ts';

const FORMAT_NAME = 'understudy repository';
const PLAIN_VERSION = 1;
const ENCRYPTED_VERSION = 2;
const CIPHER = 'aes-256-gcm';

export interface Format {
  /** 32 hex digits. */
  readonly id: string;
  readonly encryption: { readonly names: NamesMode } | null;
}

const foreign = (path: string, detail: string): UnderstudyError =>
  new UnderstudyError('ERR_DATA_FORMAT', `${path}: ${detail}`, { path });

/** Null where there is none. ERR_DATA_FORMAT for what is not ours. */
export async function readFormatObject(
  disk: Pick<Disk, 'exists' | 'readFile'>,
  { format: path }: Pick<Paths, 'format'>,
): Promise<Format | null> {
  if (!(await disk.exists(path))) return null;
  const text = Buffer.from(await disk.readFile(path)).toString('utf8');
  let found: Record<string, unknown>;
  try {
    found = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw foreign(path, 'not JSON');
  }
  if (found?.format !== FORMAT_NAME) throw foreign(path, 'not a repository of understudy');
  const { version, id, encryption } = found;
  if (version !== PLAIN_VERSION && version !== ENCRYPTED_VERSION) {
    throw foreign(path, `version ${version}`);
  }
  assertGeometry(found, path);
  if (typeof id !== 'string' || !/^[0-9a-f]{32}$/.test(id)) throw foreign(path, 'no identity');
  if (version === PLAIN_VERSION) return { id, encryption: null };
  const { cipher, names } = (encryption ?? {}) as Record<string, unknown>;
  if (cipher !== CIPHER) throw foreign(path, `cipher ${cipher}`);
  if (names !== 'hmac-sha-256' && names !== 'sha-256') throw foreign(path, `names ${names}`);
  return { id, encryption: { names } };
}

/** What is the same in every repository of these versions; `createdMs` has any time. */
const geometry = { chunkBytes: CHUNK_BYTES, chunksPerLeaf: CHUNKS_PER_LEAF, digest: 'sha-256' };

/** ERR_DATA_FORMAT: to read on with other chunks than were written would give wrong bytes. */
function assertGeometry(found: Record<string, unknown>, path: string): void {
  for (const [name, value] of Object.entries(geometry)) {
    if (found[name] !== value) throw foreign(path, `${name} is not ${value}`);
  }
  const { createdMs } = found;
  const isTime = Number.isSafeInteger(createdMs) && (createdMs as number) >= 0;
  if (!isTime) throw foreign(path, 'createdMs is no time');
}

export function encodeFormat(
  { id, encryption }: Format,
  createdMs: number,
  more: object = {},
): Uint8Array {
  const format = {
    format: FORMAT_NAME,
    version: encryption === null ? PLAIN_VERSION : ENCRYPTED_VERSION,
    id,
    ...geometry,
    ...(encryption === null ? {} : { encryption: { cipher: CIPHER, names: encryption.names } }),
    createdMs,
    ...more,
  };
  return Buffer.from(`${JSON.stringify(format, null, 2)}\n`);
}
