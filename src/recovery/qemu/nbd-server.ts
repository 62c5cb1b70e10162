/**
 * Serves one image over NBD, to QEMU on this machine: reads alone, many at a time. What cannot be read now is
 * waited for by the source; what is damaged is answered with an error at once, and the connection goes on.
 * A client that breaks the protocol is cut off.
 */
import { createServer, type Server, type Socket } from 'node:net';
import {
  CLIENT_FLAGS_BYTES,
  command,
  exportAnswers,
  failure,
  greeting,
  MAX_READ_BYTES,
  type NbdRequest,
  namedExport,
  OPTION_BYTES,
  option,
  optionAnswer,
  optionReply,
  parseOption,
  parseRequest,
  REQUEST_BYTES,
  replyHead,
  wantsZeroes,
} from './nbd.ts';

export interface NbdExport {
  readonly sizeBytes: number;
  /** `length` bytes at `offset`; null: they are damaged. Rejects where `signal` was aborted. */
  read(offset: number, length: number, signal: AbortSignal): Promise<Uint8Array | null>;
}

/** Of one connection; more are taken when these are answered. */
const MAX_READS = 16;

export function createNbdServer(image: NbdExport): Server {
  return createServer((socket) => {
    const gone = new AbortController();
    socket.on('close', () => gone.abort());
    // A client that is gone is no trouble of this server.
    socket.on('error', () => socket.destroy());
    void new Connection(image, socket, gone.signal).run().finally(() => socket.destroy());
  });
}

class Connection {
  private readonly image: NbdExport;
  private readonly socket: Socket;
  private readonly gone: AbortSignal;
  private readonly input: AsyncIterator<Buffer>;
  private rest: Buffer = Buffer.alloc(0);
  private readonly reads = new Set<Promise<void>>();

  constructor(image: NbdExport, socket: Socket, gone: AbortSignal) {
    this.image = image;
    this.socket = socket;
    this.gone = gone;
    this.input = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async run(): Promise<void> {
    if (!(await this.negotiate())) return;
    for (;;) {
      const head = await this.take(REQUEST_BYTES);
      const request = head === null ? null : parseRequest(head);
      if (request === null || request.kind === command.disconnect) return;
      // Whatever brings data along is nothing for an export that is only read.
      if (request.kind !== command.read && request.kind !== command.flush) return;
      if (this.reads.size >= MAX_READS) await Promise.race(this.reads);
      const answered = this.answer(request).finally(() => this.reads.delete(answered));
      this.reads.add(answered);
    }
  }

  /** True: the client goes on with requests. */
  private async negotiate(): Promise<boolean> {
    this.socket.write(greeting());
    const flags = await this.take(CLIENT_FLAGS_BYTES);
    if (flags === null) return false;
    for (;;) {
      const head = await this.take(OPTION_BYTES);
      const asked = head === null ? null : parseOption(head);
      if (asked === null || (await this.take(asked.length)) === null) return false;
      const { kind } = asked;
      if (kind === option.abort) return false;
      if (kind === option.exportName) {
        this.socket.write(namedExport(this.image.sizeBytes, wantsZeroes(flags)));
        return true;
      }
      if (kind === option.go || kind === option.info) {
        this.socket.write(exportAnswers(kind, this.image.sizeBytes));
      } else this.socket.write(optionAnswer(kind, optionReply.unsupported));
      if (kind === option.go) return true;
    }
  }

  private async answer({ kind, handle, offset, length }: NbdRequest): Promise<void> {
    if (kind === command.flush) return this.reply(handle, failure.none);
    const isInside = Number.isSafeInteger(offset) && offset + length <= this.image.sizeBytes;
    if (!isInside || length > MAX_READ_BYTES) return this.reply(handle, failure.invalid);
    let bytes: Uint8Array | null;
    try {
      bytes = await this.image.read(offset, length, this.gone);
    } catch (error) {
      // Nobody waits for it any more; of anything else the client is to ask again.
      if (!this.gone.aborted) process.stderr.write(`${String(error)}\n`);
      this.socket.destroy();
      return;
    }
    if (bytes === null) this.reply(handle, failure.io);
    else this.reply(handle, failure.none, bytes);
  }

  private reply(handle: bigint, error: number, bytes?: Uint8Array): void {
    if (this.gone.aborted) return;
    this.socket.cork();
    this.socket.write(replyHead(handle, error));
    if (bytes !== undefined) this.socket.write(bytes);
    this.socket.uncork();
  }

  /** Exactly so many bytes; null: the client has gone. */
  private async take(count: number): Promise<Buffer | null> {
    const parts = [this.rest];
    let have = this.rest.length;
    while (have < count) {
      const next = await this.input.next().catch(() => null);
      if (next === null || next.done === true) return null;
      parts.push(next.value);
      have += next.value.length;
    }
    const all = parts.length === 1 ? this.rest : Buffer.concat(parts);
    this.rest = all.subarray(count);
    return all.subarray(0, count);
  }
}
