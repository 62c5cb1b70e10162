/**
 * The bytes of leases and terms. FORMAT-ELSEWHERE.md, "One service at a time".
 *
 *   lease/NUMBER.lease  who has the repository: each renewal is the next number, made once
 *   terms/TERM.term     at which commit the terms before this one ended: what they commit later is stale
 */
import type { ByteReader, ByteWriter } from '../format/bytes.ts';
import { fromHex, toHex } from '../format/checksum.ts';
import { encodeHeader, openHeader } from '../format/object-header.ts';

const LEASE_MAGIC = 'US-LEASE';
const TERM_MAGIC = 'US-TERM ';

/** Commits of term t have the sequences from t * 2^36 on, so that each commit tells its term. */
export const SEQUENCES_PER_TERM = 2 ** 36;
export const MAX_TERM = 2 ** 17 - 1;

export interface LeaseRecord {
  readonly term: number;
  /** The process that holds it: 32 hex digits, chosen at random at its start. */
  readonly holder: string;
  /** Where the process runs, for people. */
  readonly host: string;
  /** Wall clock of the holder, ms: for people, nothing is decided by it. */
  readonly timeMs: number;
  /** The holder has ended in order: nobody has to wait. */
  readonly isReleased: boolean;
  /** Released, committed nothing of its own, nothing of it is under way: its term may be gone on with. */
  readonly mayGoOn: boolean;
}

export interface TermRecord {
  readonly term: number;
  /** The last commit of earlier terms that counts. */
  readonly acceptedUpTo: number;
  readonly timeMs: number;
  readonly holder: string;
}

export const leaseName = (number: number): string => `${String(number).padStart(16, '0')}.lease`;

/** Number of a lease, or term, by the name of its file; null for another name. */
export function parseLeaseName(name: string): number | null {
  const match = /^(\d{16})\.lease$/.exec(name);
  return match === null ? null : Number(match[1]);
}
export function parseTermName(name: string): number | null {
  const match = /^(\d{10})\.term$/.exec(name);
  return match === null ? null : Number(match[1]);
}

const writeWho = (writer: ByteWriter, timeMs: number, holder: string): ByteWriter =>
  writer.u64(timeMs).raw(fromHex(holder));

const readWho = (fields: ByteReader) => ({ timeMs: fields.u64(), holder: toHex(fields.raw(16)) });

const HELD = 0;
const RELEASED = 1;
const MAY_GO_ON = 2;

export function encodeLease(record: LeaseRecord): Uint8Array {
  const { term, timeMs, holder, isReleased, mayGoOn, host } = record;
  const ended = mayGoOn ? MAY_GO_ON : RELEASED;
  return encodeHeader(LEASE_MAGIC, (writer) =>
    writeWho(writer.u64(term), timeMs, holder)
      .u8(isReleased ? ended : HELD)
      .text(host),
  );
}

/** ERR_OBJECT_DAMAGED, ERR_DATA_FORMAT. */
export function decodeLease(bytes: Uint8Array, path: string): LeaseRecord {
  const { fields } = openHeader(bytes, LEASE_MAGIC, path);
  const term = fields.u64();
  const who = readWho(fields);
  const state = fields.u8();
  const mayGoOn = state === MAY_GO_ON;
  return { term, ...who, isReleased: state === RELEASED || mayGoOn, mayGoOn, host: fields.text() };
}

export const encodeTerm = ({ term, acceptedUpTo, timeMs, holder }: TermRecord): Uint8Array =>
  encodeHeader(TERM_MAGIC, (writer) =>
    writeWho(writer.u64(term).u64(acceptedUpTo), timeMs, holder),
  );

/** ERR_OBJECT_DAMAGED, ERR_DATA_FORMAT. */
export function decodeTerm(bytes: Uint8Array, path: string): TermRecord {
  const { fields } = openHeader(bytes, TERM_MAGIC, path);
  const term = fields.u64();
  return { term, acceptedUpTo: fields.u64(), ...readWho(fields) };
}
