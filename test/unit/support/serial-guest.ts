/** What sits behind a serial line: a getty, a login and a real sh, one line after the other. */
import { spawnSync } from 'node:child_process';

export interface GuestKind {
  readonly start: 'login' | 'shell';
  readonly user: string;
  /** Null: lets in at once. */
  readonly password: string | null;
  /** Shows passwords as they are typed. */
  readonly isIndiscreet?: boolean;
  /** Says this after the password, instead of opening a shell. */
  readonly refusal?: string;
  readonly prompt?: string;
}

const said = new Map<string, string>();

/** Lines with a mark are run once: they are the same each time that a property is tried. */
function runBySh(line: string): string {
  const known = said.get(line);
  if (known !== undefined) return known;
  const { stdout } = spawnSync('sh', ['-c', `exec 2>&1\n${line}`], { encoding: 'utf8' });
  said.set(line, stdout);
  return stdout;
}

export class SerialGuest {
  readonly typed: string[] = [];
  readonly ran: string[] = [];
  private readonly kind: GuestKind;
  private mode: 'login' | 'password' | 'shell';
  private line = '';

  constructor(kind: GuestKind) {
    this.kind = kind;
    this.mode = kind.start;
  }

  get isAtLogin(): boolean {
    return this.mode === 'login';
  }

  /** What the line says to it. */
  type(text: string): string {
    this.typed.push(text);
    return [...text].map((char) => this.typeOne(char)).join('');
  }

  private typeOne(char: string): string {
    if (char === '\x03') {
      this.line = '';
      return `^C\r\n${this.prompt}`;
    }
    const isShown = this.mode !== 'password' || this.kind.isIndiscreet === true;
    if (char !== '\r') {
      this.line += char;
      return isShown ? char : '';
    }
    const line = this.line;
    this.line = '';
    return `\r\n${this.enter(line)}`;
  }

  private enter(line: string): string {
    const { user, password, refusal } = this.kind;
    if (this.mode === 'login') {
      if (line === '') return this.prompt;
      this.mode = password === null && line === user ? 'shell' : 'password';
      return this.prompt;
    }
    if (this.mode === 'password') {
      const isRight = line === password && refusal === undefined;
      this.mode = isRight ? 'shell' : 'login';
      const words = isRight ? 'Last login: Fri Nov 20\r\nAccess is not allowed to cats' : refusal;
      return `${words ?? 'Login incorrect'}\r\n${this.prompt}`;
    }
    if (line.trim() === 'exit') this.mode = 'login';
    else if (line !== '') {
      this.ran.push(line);
      return runBySh(line).replaceAll('\n', '\r\n') + this.prompt;
    }
    return this.prompt;
  }

  private get prompt(): string {
    const prompts = { login: 'guest login: ', password: 'Password: ' };
    return this.mode === 'shell' ? (this.kind.prompt ?? '~ # ') : prompts[this.mode];
  }
}
