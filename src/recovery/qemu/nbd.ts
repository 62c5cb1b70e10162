/**
 * NBD, the server's side of it, as bytes: fixed newstyle handshake, one export that is only read, simple replies.
 * Pure. https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */

/** No request for more is answered; QEMU is told so and cuts larger ones. One step of staging's (api/images.ts). */
export const MAX_READ_BYTES = 2 ** 20;
const PREFERRED_BYTES = 65_536;

const MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;

const FIXED_NEWSTYLE = 1;
const NO_ZEROES = 2;
/** HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN. */
const EXPORT_FLAGS = 1 | 2 | 256;

export const option = { exportName: 1, abort: 2, info: 6, go: 7 } as const;
export const optionReply = { ack: 1, info: 3, unsupported: 2 ** 31 + 1 } as const;
export const command = { read: 0, disconnect: 2, flush: 3 } as const;
/** EIO: what a disk answers for a bad sector. EINVAL: the request itself is wrong. */
export const failure = { none: 0, io: 5, invalid: 22 } as const;

export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_BYTES = 16;
export const REQUEST_BYTES = 28;
/** Data of an option: a name and a few numbers. */
export const MAX_OPTION_BYTES = 8192;

export interface NbdOption {
  readonly kind: number;
  readonly length: number;
}

export interface NbdRequest {
  readonly kind: number;
  readonly handle: bigint;
  readonly offset: number;
  readonly length: number;
}

export function greeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(MAGIC, 0);
  bytes.writeBigUInt64BE(OPTION_MAGIC, 8);
  bytes.writeUInt16BE(FIXED_NEWSTYLE | NO_ZEROES, 16);
  return bytes;
}

export const wantsZeroes = (clientFlags: Buffer): boolean =>
  (clientFlags.readUInt32BE(0) & NO_ZEROES) === 0;

/** Null: no option of the protocol. */
export function parseOption(head: Buffer): NbdOption | null {
  if (head.readBigUInt64BE(0) !== OPTION_MAGIC) return null;
  const length = head.readUInt32BE(12);
  return length > MAX_OPTION_BYTES ? null : { kind: head.readUInt32BE(8), length };
}

export function optionAnswer(kind: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  head.writeUInt32BE(kind, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

/** The answers to "info" and "go": the size, and how long a request may be. */
export function exportAnswers(kind: number, sizeBytes: number): Buffer {
  const size = Buffer.alloc(12);
  size.writeBigUInt64BE(BigInt(sizeBytes), 2);
  size.writeUInt16BE(EXPORT_FLAGS, 10);
  const blocks = Buffer.alloc(14);
  blocks.writeUInt16BE(3, 0);
  for (const [at, bytes] of [1, PREFERRED_BYTES, MAX_READ_BYTES].entries()) {
    blocks.writeUInt32BE(bytes, 2 + 4 * at);
  }
  return Buffer.concat([
    optionAnswer(kind, optionReply.info, size),
    optionAnswer(kind, optionReply.info, blocks),
    optionAnswer(kind, optionReply.ack),
  ]);
}

/** The answer to an export that is asked for by its name alone. */
export function namedExport(sizeBytes: number, isPadded: boolean): Buffer {
  const bytes = Buffer.alloc(isPadded ? 134 : 10);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0);
  bytes.writeUInt16BE(EXPORT_FLAGS, 8);
  return bytes;
}

/** Null: no request of the protocol. */
export function parseRequest(head: Buffer): NbdRequest | null {
  if (head.readUInt32BE(0) !== REQUEST_MAGIC) return null;
  return {
    kind: head.readUInt16BE(6),
    handle: head.readBigUInt64BE(8),
    offset: Number(head.readBigUInt64BE(16)),
    length: head.readUInt32BE(24),
  };
}

export function replyHead(handle: bigint, error: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(REPLY_MAGIC, 0);
  bytes.writeUInt32BE(error, 4);
  bytes.writeBigUInt64BE(handle, 8);
  return bytes;
}
