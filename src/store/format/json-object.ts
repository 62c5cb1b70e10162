/**
 * Small objects whose body is JSON, for a stranger to read (P7): holds, policies. Header {length of the
 * body u32, XXH64 of the body}, then the body, as a point has it. Decoding is total: an object of JSON, or
 * ERR_OBJECT_DAMAGED.
 */
import { checksum } from './checksum.ts';
import { damaged, encodeHeader, openHeader } from './object-header.ts';

export function encodeJsonObject(magic: string, value: object): Uint8Array {
  const body = new Uint8Array(Buffer.from(JSON.stringify(value), 'utf8'));
  const header = encodeHeader(magic, (writer) => writer.u32(body.length).raw64(checksum(body)));
  return Buffer.concat([header, body]);
}

export function decodeJsonObject(
  bytes: Uint8Array,
  magic: string,
  path: string,
): Record<string, unknown> {
  const { fields, length } = openHeader(bytes, magic, path);
  const bodyLength = fields.u32();
  const body = bytes.subarray(length);
  if (body.length !== bodyLength || checksum(body) !== fields.raw64()) {
    throw damaged(path, 'the body is damaged');
  }
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch (cause) {
    throw damaged(path, 'the body is not JSON', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw damaged(path, 'the body is not an object');
  }
  return value as Record<string, unknown>;
}

/** A field that must be a text. */
export function textOf(value: Record<string, unknown>, name: string, path: string): string {
  const text = value[name];
  if (typeof text !== 'string') throw damaged(path, `${name} is not a text`);
  return text;
}
