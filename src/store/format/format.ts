/**
 * `format.json`: what a repository is, and whether it is encrypted. Version 1 is plain; version 2 is
 * encrypted. It is clear text, so nothing is believed of it that the keys do not confirm: how contents are
 * named is bound into the name key, and whether there must be keys is what the operator says.
 */
import { createHash } from 'node:crypto';
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

/** What stands behind the fields that it covers; readers that do not know it ignore it. */
const CHECKSUM = /,\n {2}"checksum": "([0-9a-f]{64})"\n\}\n$/;

const sumOf = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');

const FIELDS: readonly string[] = [
  ...['format', 'version', 'id', ...Object.keys(geometry), 'encryption', 'createdMs', 'copyOf'],
];

/**
 * What shows that a file that can be read is not as it was written; null where nothing does. One without a
 * checksum was made before there was one, and has no field that is not known.
 */
export function formatFault(bytes: Uint8Array): string | null {
  // Byte by byte, whatever they are.
  const text = Buffer.from(bytes).toString('latin1');
  const match = CHECKSUM.exec(text);
  if (match !== null) {
    return sumOf(text.slice(0, match.index)) === match[1] ? null : 'its checksum is another';
  }
  const found = JSON.parse(text) as { copyOf?: { repository?: unknown } };
  const of = found.copyOf === undefined ? null : String(found.copyOf?.repository);
  if (of !== null && !/^[0-9a-f]{32}$/.test(of)) return 'copyOf names no repository';
  const other = Object.keys(found).find((name) => !FIELDS.includes(name));
  return other === undefined ? null : `it has no checksum, and a field that is not known: ${other}`;
}

/** The file as it was before one of its bits changed, which its checksum proves; null where it was not one bit. */
export function withoutFlip(bytes: Uint8Array): Uint8Array | null {
  const changed = Uint8Array.from(bytes);
  for (let at = 0; at < changed.length; at += 1) {
    const byte = changed[at]!;
    for (let bit = 0; bit < 8; bit += 1) {
      changed[at] = byte ^ (1 << bit);
      const match = CHECKSUM.exec(Buffer.from(changed).toString('latin1'));
      if (match !== null && formatFault(changed) === null) return changed;
    }
    changed[at] = byte;
  }
  return null;
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
  const text = JSON.stringify(format, null, 2).slice(0, -'\n}'.length);
  return Buffer.from(`${text},\n  "checksum": "${sumOf(text)}"\n}\n`);
}
