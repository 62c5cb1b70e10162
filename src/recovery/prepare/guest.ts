/**
 * What the preparation asks of its virtual machine (appliance-script.ts), one request at a time. The machine
 * holds a source's disk and is not trusted: an answer has a bound before it is read, a time in which it
 * must come, and a form; what breaks these ends the preparation.
 */
import { connect, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { MIB } from '../../base/units.ts';
import { plain } from '../plain-text.ts';
import type { DiskTree, Entry, FileKind } from './disk-tree.ts';

/** Under emulation even a short answer takes its time; a mount may replay a long journal. */
const ANSWER_MS = 180_000;
const MAX_HEAD_BYTES = 64;
const MAX_TEXT_BYTES = MIB;
const PIECE_BYTES = 65_536;
const UNASKED = 'the machine speaks without being asked';

export const prepareFailed = (message: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError('ERR_PREPARE_FAILED', message, {}, cause);

/** The machine said no: for the caller to judge. */
export class Refusal extends Error {}

interface Waiting {
  readonly mostBytes: number;
  resolve(bytes: Buffer): void;
  reject(error: Error): void;
}

/** Bytes of one connection as answers. */
export class GuestTalk {
  private readonly socket: Socket;
  private readonly clock: Clock;
  private waiting: Waiting | null = null;
  private parts: Buffer[] = [];
  private held = 0;
  private head: { isYes: boolean; length: number } | null = null;
  private error: Error | null = null;

  constructor(socket: Socket, clock: Clock) {
    this.socket = socket;
    this.clock = clock;
    socket.on('data', (bytes: Buffer) => this.take(bytes));
    socket.on('error', (cause) => this.end(prepareFailed('the machine cannot be reached', cause)));
    socket.on('close', () => this.end(prepareFailed('the machine has ended')));
  }

  static connect(path: string, clock: Clock): Promise<GuestTalk> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('connect', () => resolve(new GuestTalk(socket, clock)));
      socket.once('error', reject);
    });
  }

  /** `mostBytes`: more is a broken promise. Refusal where the machine says no. */
  async ask(line: string, mostBytes: number, limitMs = ANSWER_MS): Promise<Buffer> {
    if (hasControl(line)) throw new Refusal('a name with control characters in it');
    this.socket.write(`${line}\n`);
    return this.answer(mostBytes, limitMs);
  }

  /** A request with a content that the machine asks for. */
  async send(line: string, content: Uint8Array): Promise<void> {
    await this.ask(line, 0);
    for (let at = 0; at < content.length; at += PIECE_BYTES) {
      const isRoom = this.socket.write(content.subarray(at, at + PIECE_BYTES));
      if (!isRoom) await this.drained();
    }
    await this.answer(MAX_TEXT_BYTES, ANSWER_MS);
  }

  close(): void {
    this.socket.destroy();
  }

  /** For a wait of the caller's own. */
  fail(error: Error): void {
    this.end(error);
  }

  private drained(): Promise<void> {
    if (this.error !== null) return Promise.reject(this.error);
    return new Promise((resolve) => {
      const done = (): void => {
        this.socket.off('drain', done);
        this.socket.off('close', done);
        resolve();
      };
      this.socket.on('drain', done);
      this.socket.on('close', done);
    });
  }

  private async answer(mostBytes: number, limitMs: number): Promise<Buffer> {
    if (this.error !== null) throw this.error;
    const timer = this.clock.after(limitMs, () => {
      this.end(prepareFailed('the machine does not answer'));
    });
    try {
      return await new Promise<Buffer>((resolve, reject) => {
        this.waiting = { mostBytes, resolve, reject };
        this.step();
      });
    } finally {
      timer.cancel();
    }
  }

  private take(bytes: Buffer): void {
    this.parts.push(bytes);
    this.held += bytes.length;
    if (this.waiting === null) this.end(prepareFailed(UNASKED));
    else this.step();
  }

  private step(): void {
    const { waiting } = this;
    if (waiting === null) return;
    if (this.head === null && !this.readHead(waiting)) return;
    const { isYes, length } = this.head!;
    if (this.held < length) return;
    const all = this.joined();
    this.parts = all.length > length ? [all.subarray(length)] : [];
    this.held = all.length - length;
    this.head = null;
    this.waiting = null;
    const content = all.subarray(0, length);
    if (this.held > 0) {
      waiting.reject(prepareFailed(UNASKED));
      this.end(prepareFailed(UNASKED));
    } else if (isYes) waiting.resolve(content);
    else waiting.reject(new Refusal(plainText(content).slice(0, 500)));
  }

  private readHead({ mostBytes }: Waiting): boolean {
    const all = this.joined();
    const end = all.indexOf(10);
    if (end === -1 && all.length <= MAX_HEAD_BYTES) return false;
    const found = /^(ok|no) (\d{1,12})$/.exec(all.toString('latin1', 0, Math.max(0, end)));
    const most = found?.[1] === 'no' ? MAX_TEXT_BYTES : mostBytes;
    if (found === null || Number(found[2]) > most) {
      this.end(prepareFailed('the machine gives an answer of no sense'));
      return false;
    }
    this.head = { isYes: found[1] === 'ok', length: Number(found[2]) };
    this.parts = [all.subarray(end + 1)];
    this.held = all.length - end - 1;
    return true;
  }

  private joined(): Buffer {
    if (this.parts.length !== 1) this.parts = [Buffer.concat(this.parts)];
    return this.parts[0]!;
  }

  private end(error: Error): void {
    this.error ??= error;
    this.waiting?.reject(this.error);
    this.waiting = null;
    this.socket.destroy();
  }
}

const hasControl = (text: string): boolean =>
  [...text].some((char) => char < ' ' || char === '\u007f');

export const plainText = (bytes: Buffer): string => plain(bytes.toString('utf8')).trim();

const isWord = (text: string): boolean => /^\S+$/.test(text);

/** The machine as a tree of files, and what comes before there is one. */
export class Guest implements DiskTree {
  private readonly talk: GuestTalk;

  constructor(talk: GuestTalk) {
    this.talk = talk;
  }

  /** One line for each device; see devices.ts. */
  async devices(): Promise<string> {
    return (await this.talk.ask('devices', MAX_TEXT_BYTES)).toString('utf8');
  }

  /** The first bytes of a device. */
  async head(device: string, bytes: number): Promise<Buffer> {
    return this.talk.ask(`head ${bytes} ${device}`, bytes);
  }

  async activateLvm(): Promise<void> {
    await this.talk.ask('lvm', MAX_TEXT_BYTES);
  }

  async load(group: string): Promise<void> {
    await this.talk.ask(`load ${group}`, 0);
  }

  /** Refusal where it cannot be mounted. */
  async mount(device: string, type: string, options: string, path: string): Promise<void> {
    if (![device, type, options].every(isWord)) throw new Refusal('a mount of no sense');
    await this.talk.ask(`mount ${device} ${type} ${options} ${path}`, MAX_TEXT_BYTES);
  }

  async unmount(path: string): Promise<void> {
    await this.talk.ask(`umount ${path}`, MAX_TEXT_BYTES);
  }

  /** From here on paths are those of the disk's root file system, mounted at /disk/root. */
  async enter(): Promise<void> {
    await this.talk.ask('enter', 0);
  }

  /** Everything written and unmounted; Refusal where that did not go well. */
  async leave(): Promise<void> {
    await this.talk.ask('end', MAX_TEXT_BYTES);
  }

  async read(path: string, mostBytes = MAX_TEXT_BYTES): Promise<Buffer> {
    return this.talk.ask(`read ${mostBytes} ${path}`, mostBytes);
  }

  async stat(path: string): Promise<{ kind: FileKind | null; sizeBytes: number }> {
    const text = (await this.talk.ask(`stat ${path}`, 64)).toString('latin1');
    const found = /^([dflo-]) (\d{1,15})\n$/.exec(text);
    if (found === null) throw prepareFailed('the machine gives an answer of no sense');
    const [, letter, size] = found;
    return { kind: letter === '-' ? null : (letter as FileKind), sizeBytes: Number(size) };
  }

  async list(path: string): Promise<Entry[]> {
    const text = (await this.talk.ask(`list ${path}`, MAX_TEXT_BYTES)).toString('utf8');
    return text
      .split('\0')
      .filter((each) => /^[dflo]./.test(each) && !hasControl(each))
      .map((each) => ({ kind: each[0] as FileKind, name: each.slice(1) }));
  }

  async freeBytes(path: string): Promise<number> {
    const text = (await this.talk.ask(`free ${path}`, 64)).toString('latin1');
    const [blocks = Number.NaN, size = Number.NaN] = text.trim().split(' ').map(Number);
    return Number.isSafeInteger(blocks * size) ? blocks * size : 0;
  }

  async write(path: string, content: Uint8Array, mode = 0o644): Promise<void> {
    await this.talk.send(`write ${content.length} ${mode.toString(8)} ${path}`, content);
  }

  async append(path: string, content: Uint8Array): Promise<void> {
    await this.talk.send(`append ${content.length} ${path}`, content);
  }

  async copy(from: string, to: string): Promise<void> {
    await this.talk.ask(`keep ${from}|${to}`, MAX_TEXT_BYTES);
  }

  async move(from: string, to: string): Promise<void> {
    await this.talk.ask(`move ${from}|${to}`, MAX_TEXT_BYTES);
  }

  async label(context: string, path: string): Promise<void> {
    await this.talk.ask(`label ${context} ${path}`, MAX_TEXT_BYTES);
  }

  async link(target: string, path: string): Promise<void> {
    await this.talk.ask(`link ${target}|${path}`, MAX_TEXT_BYTES);
  }
}
