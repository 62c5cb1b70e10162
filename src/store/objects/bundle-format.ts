/**
 * A bundle: small objects put into a bucket as one, because there every put costs.
 * FORMAT-ELSEWHERE.md, "Bundles".
 *
 *   header     object-header.ts, with counts, length and XXH64 of the directory
 *   directory  of each member: name, offset, length; then the names of the bundles that it replaces
 *   members    their bytes, one after the other; each has checksums of its own kind
 */
import { ByteReader, ByteWriter } from '../format/bytes.ts';
import { checksum } from '../format/checksum.ts';
import {
  damaged,
  encodeHeader,
  headerLength,
  openHeader,
  PREFIX_BYTES,
} from '../format/object-header.ts';

const MAGIC = 'US-BUNDL';
/** No directory is longer: a hostile length must not allocate. */
const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024;

export interface BundleMember {
  readonly name: string;
  /** In the bundle. */
  readonly offset: number;
  readonly bytes: number;
}

interface BundleDirectory {
  readonly members: readonly BundleMember[];
  /** Names of bundles that count no more: what they held and is alive is here. */
  readonly replaces: readonly string[];
}

const headerOf = (directory: Uint8Array, members: number, replaces: number): Uint8Array =>
  encodeHeader(MAGIC, (writer) =>
    writer.u32(members).u32(replaces).u32(directory.length).raw64(checksum(directory)),
  );

/** Members in the order given; offsets follow from the lengths. */
export function encodeBundle(
  members: ReadonlyMap<string, Uint8Array>,
  replaces: readonly string[],
): Uint8Array {
  const directory = (start: number): Uint8Array => {
    const writer = new ByteWriter();
    let at = start;
    for (const [name, bytes] of members) {
      writer.text(name).u64(at).u64(bytes.length);
      at += bytes.length;
    }
    for (const name of replaces) writer.text(name);
    return writer.take();
  };
  // Fields have fixed lengths, so where the members start does not change the length of what is before.
  const draft = directory(0);
  const head = headerOf(draft, members.size, replaces.length).length + draft.length;
  const whole = directory(head);
  return Buffer.concat([
    headerOf(whole, members.size, replaces.length),
    whole,
    ...members.values(),
  ]);
}

/** Reads a bundle's directory by `read(offset, length)`. ERR_OBJECT_DAMAGED, ERR_DATA_FORMAT. */
export async function readDirectory(
  path: string,
  read: (offset: number, length: number) => Promise<Uint8Array>,
): Promise<BundleDirectory> {
  const prefix = await read(0, PREFIX_BYTES);
  const length = headerLength(prefix, MAGIC, path);
  const { fields } = openHeader(await read(0, length), MAGIC, path);
  const [members, replaces, bytes] = [fields.u32(), fields.u32(), fields.u32()];
  if (bytes > MAX_DIRECTORY_BYTES) throw damaged(path, `a directory of ${bytes} bytes`);
  const directory = await read(length, bytes);
  if (directory.length < bytes || checksum(directory) !== fields.raw64()) {
    throw damaged(path, 'the directory is damaged');
  }
  return decodeDirectory(new ByteReader(directory, path), members, replaces);
}

function decodeDirectory(reader: ByteReader, members: number, replaces: number): BundleDirectory {
  const found: BundleMember[] = [];
  for (let i = 0; i < members; i += 1) {
    const name = reader.text();
    found.push({ name, offset: reader.u64(), bytes: reader.u64() });
  }
  const gone: string[] = [];
  for (let i = 0; i < replaces; i += 1) gone.push(reader.text());
  return { members: found, replaces: gone };
}
