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
/** The kernel may say something behind the prompt, on the same line. */
const login = /(?:^|[\n ])([^\n]*?\blogin: ?)(?:\n|$|\[ *\d+\.\d{6}\])/;

/** Escape sequences of terminals, and carriage returns. */
const ESCAPE = String.fromCharCode(27);
const noise = new RegExp(`${ESCAPE}(?:\\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cM])|\\r`, 'g');

export const plainConsole = (text: string): string => text.replace(noise, '');

const shown = (line: string): string => plain(line).trim().slice(0, 200);

/** `text`: what the console has said so far, or the end of it. */
export function judgeConsole(text: string): ConsoleVerdict {
  const plain = plainConsole(text);
  for (const sign of stuck) {
    const found = sign.exec(plain);
    if (found !== null) return { kind: 'stuck', line: shown(found[0]) };
  }
  const prompt = login.exec(plain);
  return prompt === null ? { kind: 'waiting' } : { kind: 'login', line: shown(prompt[1]!) };
}
