/**
 * A probe over the serial line: a command runs on the guest's serial console, and its exit code is the
 * verdict. serial-state.ts decides what is typed; this holds the line. QEMU serves one client at a time:
 * while an operator is on the line it is left to him, and it is ours from the login to the end of the command
 * alone. An answer that is not good is asked for again, like that of any probe.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { diskError } from '../../base/node-disk.ts';
import type { Launch } from '../launcher.ts';
import { vmPaths } from './command.ts';
import { ConsoleMask, sizeOf } from './console-mask.ts';
import { undisturbed } from './console-state.ts';
import type { Probe } from './options.ts';
import type { ProbeAnswer } from './probe.ts';
import { probePassword } from './probe-files.ts';
import type { Qmp } from './qmp.ts';
import {
  invites,
  openSerial,
  type SerialAnswer,
  type SerialEvent,
  type SerialQuestion,
  serialTransition,
} from './serial-state.ts';
import { softly } from './vm.ts';

const RETRY_MS = 5000;
const LABEL = 'serial0';
const NO_PROMPT = 'no login prompt on the serial console';

export type SerialWords = Extract<Probe, { kind: 'serial' }>;

export interface SerialWay {
  /** The end of what the console has said. */
  readonly tail: string;
  readonly qmp: Qmp;
}

export class SerialProbe {
  private readonly probe: SerialWords;
  private readonly launch: Launch;
  private readonly consolePath: string;
  private readonly probeKeys: string | null;
  private talk: SerialTalk | null = null;
  private mask: ConsoleMask | null = null;
  private last: ProbeAnswer = { isGood: false, detail: NO_PROMPT };
  private againMs = Number.NEGATIVE_INFINITY;
  /** Somebody was there to talk to: from then on our empty line asks. */
  private hasMet = false;
  private heard = '';
  private heardMs: number;

  constructor(
    probe: SerialWords,
    launch: Launch,
    { consolePath, probeKeys }: { consolePath: string; probeKeys: string | null },
  ) {
    this.probe = probe;
    this.launch = launch;
    this.consolePath = consolePath;
    this.probeKeys = probeKeys;
    this.heardMs = launch.clock.monotonicMs();
  }

  /** What the console says is the answer to us: it says nothing of the boot. */
  get isTalking(): boolean {
    return this.talk !== null;
  }

  /** To be called again and again; it waits for nothing that the guest does. */
  async answer({ tail, qmp }: SerialWay): Promise<ProbeAnswer> {
    const nowMs = this.launch.clock.monotonicMs();
    this.listen(tail, nowMs);
    if (this.talk === null) await this.maybeBegin(qmp, nowMs);
    this.talk?.tick();
    this.mask?.cover();
    const answer = this.talk?.answer ?? null;
    if (answer !== null) await this.take(answer, nowMs);
    return this.last;
  }

  /** Gives the line back, whatever is going on. */
  close(): void {
    this.talk?.close();
    this.talk = null;
    this.mask?.cover();
  }

  private listen(tail: string, nowMs: number): void {
    const heard = undisturbed(tail);
    if (heard === this.heard) return;
    this.heard = heard;
    this.heardMs = nowMs;
  }

  private async maybeBegin(qmp: Qmp, nowMs: number): Promise<void> {
    const isTime = nowMs >= this.againMs;
    if (!isTime || (!this.hasMet && !invites(this.heard, nowMs - this.heardMs))) return;
    if (await isTaken(qmp)) {
      this.last = { isGood: false, detail: 'somebody else is on the serial console' };
      return;
    }
    const { user, run, passwordFile } = this.probe;
    const password =
      passwordFile === null ? null : await probePassword(passwordFile, this.probeKeys);
    if (password !== null) await this.hide(password);
    const question = { user, run, password, mark: randomBytes(12).toString('hex') };
    this.hasMet = true;
    this.talk = new SerialTalk(vmPaths(this.launch.runFolder).serial, question, this.launch);
  }

  /** A former life of staging may have typed it, and not seen what came back. */
  private async hide(password: string): Promise<void> {
    const { launch, consolePath } = this;
    if (this.mask !== null) return;
    const isFirst = launch.notes.hasTyped !== true;
    this.mask = new ConsoleMask(consolePath, password, isFirst ? sizeOf(consolePath) : 0);
    if (isFirst) await softly(launch, launch.remember({ hasTyped: true }));
  }

  private async take(answer: SerialAnswer, nowMs: number): Promise<void> {
    const { isGood, isLast, detail, output } = answer;
    this.close();
    this.againMs = nowMs + RETRY_MS;
    this.last = { isGood, isLast, detail };
    if (output !== null) await this.keep(detail, output);
  }

  /** The whole of it, of the last time. */
  private async keep(detail: string, output: string): Promise<void> {
    const path = join(this.launch.folder, 'probe.log');
    const time = new Date(this.launch.clock.wallMs()).toISOString();
    await writeFile(path, `${time} ${detail}\n\n${output}\n`).catch((cause: unknown) => {
      throw diskError(cause, path);
    });
  }
}

/** Whoever else connects waits until the one that is served has gone; what it sends comes then. */
async function isTaken(qmp: Qmp): Promise<boolean> {
  const lines = await qmp.run<{ label: string; filename: string }[]>('query-chardev');
  const line = lines.find(({ label }) => label === LABEL);
  return line !== undefined && !line.filename.startsWith('disconnected:');
}

/** One talk, from the first empty line to its answer. */
class SerialTalk {
  answer: SerialAnswer | null = null;
  private readonly socket: Socket;
  private readonly launch: Launch;
  private state: ReturnType<typeof openSerial>;

  constructor(path: string, question: SerialQuestion, launch: Launch) {
    this.launch = launch;
    this.state = openSerial(question, launch.clock.monotonicMs());
    this.socket = connect(path);
    this.socket.setEncoding('utf8');
    this.socket.on('connect', () => this.tell({ type: 'open' }));
    this.socket.on('data', (text: string) => this.tell({ type: 'heard', text }));
    this.socket.on('error', (error) => this.cut(`: ${error.message}`));
    this.socket.on('close', () => this.cut(''));
  }

  tick(): void {
    this.tell({ type: 'time' });
  }

  /** What was typed still arrives. */
  close(): void {
    if (this.answer === null) this.tell({ type: 'close' });
    this.socket.end();
  }

  private tell(event: SerialEvent): void {
    const { state, effects } = serialTransition(this.state, event, this.launch.clock.monotonicMs());
    this.state = state;
    for (const effect of effects) {
      if (effect.type === 'type') this.socket.write(effect.text);
      else this.answer = effect.answer;
    }
  }

  private cut(why: string): void {
    const detail = `the line to the serial console was cut${why}`;
    this.answer ??= { isGood: false, isLast: false, detail, output: null };
  }
}
