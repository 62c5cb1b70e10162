/**
 * What a machine's serial console says about its boot: a login prompt, or that it has given up. Pure; the
 * text is the guest's to write, so it decides nothing but the verdict of the check of this very guest.
 */
import { plain } from '../plain-text.ts';

export type ConsoleVerdict =
  | { readonly kind: 'waiting' }
  | { readonly kind: 'login'; readonly line: string }
  | { readonly kind: 'stuck'; readonly line: string };

/** Nothing good comes after one of these. */
const stuck: readonly RegExp[] = [
  /Kernel panic - not syncing.*/,
  /(?:^|\n)ALERT!.*/,
  /Gave up waiting for (?:root|suspend).*/,
  /You are in (?:emergency|rescue) mode.*/,
  /Entering emergency mode.*/,
  /dracut(?:-initqueue)?.*(?:Could not boot|timeout.*starting timeout scripts).*/i,
  /grub rescue>/,
  /BdsDxe: No bootable option.*/,
  /UEFI Interactive Shell.*/,
  /No bootable device.*/,
];
/** The kernel, or systemd, may say something behind the prompt, on the same line. */
const KERNEL = '\\[ *\\d+\\.\\d{6}\\]';
const STATUS = '\\[(?:  OK  |FAILED|DEPEND| INFO | WARN | SKIP | TIME )\\]';
const login = new RegExp(`(?:^|[\\n ])([^\\n]{0,200}?\\blogin: ?)(?:\\n|$|${KERNEL}|${STATUS})`);
/** As getty asks, behind an empty line, or soon behind the line that says which host and terminal this is. */
const afterBlank = /(?:^|\n\n)((?!Last )\S{1,64} login: )/;
const afterIssue = /\b(\S{1,64}) (?:tty\S{1,9}|hvc\d|console)\n(?:[^\n]*\n){0,20}(\1 login: )/;
/**
 * Bounded: a hostile guest says what takes long. The prompt is the last group. Behind those of getty services
 * may speak at any time.
 */
const prompts = [login, afterBlank, afterIssue];

/** Escape sequences of terminals, and carriage returns. */
const ESCAPE = String.fromCharCode(27);
const noise = new RegExp(`${ESCAPE}(?:\\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cM])|\\r`, 'g');

export const plainConsole = (text: string): string => text.replace(noise, '');

/** Titles and marks of a terminal, up to the sign that ends them. */
const strings = new RegExp(`${ESCAPE}\\][^${ESCAPE}\\x07]*(?:\\x07|${ESCAPE}\\\\)`, 'g');
const interruption = `(?:${KERNEL}(?:\\[ *[CT]\\d+\\])?|${STATUS}) [^\\n]*`;
const interruptions = new RegExp(`${interruption}(?:\\n|$)`, 'g');
const unfinished = new RegExp(`${interruption}$`);

/** What programs have said on a terminal: without what the kernel and systemd say in between, wherever. */
export const undisturbed = (text: string): string =>
  plainConsole(text.replace(strings, '')).replace(interruptions, '');

/** The kernel, or systemd, is in the middle of a line. */
export const isInterrupted = (text: string): boolean => unfinished.test(plainConsole(text));

export const shownLine = (line: string): string => plain(line).trim().slice(0, 200);

/** `text`: what the console has said so far, or the end of it. */
export function judgeConsole(text: string): ConsoleVerdict {
  const plain = plainConsole(text);
  for (const sign of stuck) {
    const found = sign.exec(plain);
    if (found !== null) return { kind: 'stuck', line: shownLine(found[0]) };
  }
  const [prompt] = prompts.flatMap((each) => each.exec(plain)?.at(-1) ?? []);
  return prompt === undefined ? { kind: 'waiting' } : { kind: 'login', line: shownLine(prompt) };
}
