/**
 * Messages to frames and back: the table of types. Pure and total: `decodeMessage` gives the one message
 * that encodes to these bytes, or throws one of ERR_PROTOCOL_FRAME, ERR_PROTOCOL_CHECKSUM,
 * ERR_PROTOCOL_MESSAGE, ERR_ENTRIES_INVALID; it allocates in proportion to the frame and no more.
 *
 * What comes back are views of the frame: whoever keeps a digest or a content keeps the frame. Order and
 * meaning of messages are the session's business.
 */
import {
  readCommit,
  readHello,
  readOffer,
  readPatch,
  readPiecesMessage,
  readStatus,
  writeCommit,
  writeHello,
  writeOffer,
  writePatch,
  writePiecesMessage,
  writeStatus,
} from './agent-messages.ts';
import { ByteReader, ByteWriter, malformed } from './bytes.ts';
import { openFrame, peekFrameType, sealFrame } from './frame.ts';
import { readMachine, writeMachine } from './machine-message.ts';
import type { Message } from './messages.ts';
import {
  readAnswer,
  readCommitted,
  readCutRequest,
  readMissing,
  readPing,
  readPong,
  readRefusal,
  readStored,
  readWelcome,
  writeAnswer,
  writeBeat,
  writeCommitted,
  writeCutRequest,
  writeMissing,
  writeRefusal,
  writeStored,
  writeWelcome,
} from './staging-messages.ts';

type Type = Message['type'];
type MessageOf<T extends Type> = Extract<Message, { type: T }>;

interface Format<T extends Type> {
  /** The type byte of the frame; never used again for anything else. */
  readonly byte: number;
  readonly write: (out: ByteWriter, message: MessageOf<T>) => void;
  readonly read: (from: ByteReader, contents: Uint8Array) => MessageOf<T>;
}

const formats: { readonly [T in Type]: Format<T> } = {
  hello: { byte: 1, write: writeHello, read: readHello },
  welcome: { byte: 2, write: writeWelcome, read: readWelcome },
  offer: { byte: 3, write: writeOffer, read: readOffer },
  answer: { byte: 4, write: writeAnswer, read: readAnswer },
  patch: { byte: 5, write: writePatch, read: readPatch },
  pieces: { byte: 6, write: writePiecesMessage, read: readPiecesMessage },
  stored: { byte: 7, write: writeStored, read: readStored },
  commit: { byte: 8, write: writeCommit, read: readCommit },
  committed: { byte: 9, write: writeCommitted, read: readCommitted },
  missing: { byte: 10, write: writeMissing, read: readMissing },
  'cut-request': { byte: 11, write: writeCutRequest, read: readCutRequest },
  status: { byte: 12, write: writeStatus, read: readStatus },
  ping: { byte: 13, write: writeBeat, read: readPing },
  pong: { byte: 14, write: writeBeat, read: readPong },
  refusal: { byte: 15, write: writeRefusal, read: readRefusal },
  machine: { byte: 16, write: writeMachine, read: readMachine },
};

const typeNames: Type[] = [];
for (const [type, { byte }] of Object.entries(formats)) typeNames[byte] = type as Type;

const hasContents = (type: Type): boolean => type === 'patch' || type === 'pieces';

/**
 * The frame of a message, in memory of its own or at the begin of `into` where it fits there. Throws
 * ERR_BUG for a message that breaks its bounds.
 */
export function encodeMessage(message: Message, into?: Buffer): Uint8Array {
  const format = formats[message.type] as Format<Type>;
  const out = new ByteWriter();
  format.write(out, message);
  const pieces = 'pieces' in message ? message.pieces : [];
  const contents = pieces.map((piece) => piece.stored);
  return sealFrame(format.byte, out.done(), contents, into);
}

export function decodeMessage(frame: Uint8Array): Message {
  const { type: byte, fields, contents } = openFrame(frame);
  const type = typeNames[byte];
  if (type === undefined) throw malformed(`unknown type ${byte}`);
  if (contents.length > 0 && !hasContents(type)) throw malformed(`contents in ${type}`);
  const from = new ByteReader(fields);
  const message = formats[type].read(from, contents);
  if (from.left > 0) throw malformed(`${from.left} bytes too many in ${type}`);
  return message;
}

/** What the frame claims to be, unchecked; null for what is no frame. */
export const peekType = (frame: Uint8Array): Type | null => typeNames[peekFrameType(frame)] ?? null;
