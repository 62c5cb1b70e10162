/**
 * What boot loaders tell the kernel, made to fit another machine: root= and resume= by UUID in place of a
 * name of hardware, and a serial console besides the screen. Known: grub.cfg, /etc/default/grub, entries of
 * the Boot Loader Specification, grubenv (kernelopts), /etc/kernel/cmdline, extlinux. All else in these
 * files stays byte for byte. Pure.
 */
import { type Device, type Disks, deviceOfSpec, isHardwareSpec } from './devices.ts';
import { type Rewritten, uuidSpec } from './fstab.ts';
import type { Note } from './report.ts';

const SERIAL = 'console=ttyS0,115200';
const SCREEN = 'console=tty0';

export type LoaderKind = 'grub' | 'default' | 'entry' | 'grubenv' | 'words' | 'extlinux';

/** The part of a line that is a kernel's command line: before it, and it. */
const linePatterns: Record<Exclude<LoaderKind, 'default'>, RegExp> = {
  grub: /^(\s*linux(?:16|efi)?\s+\S+\s+)(.*)$/,
  entry: /^(options\s+)(.*)$/,
  grubenv: /^(kernelopts=)(.*)$/,
  words: /^(\s*)(\S.*)$/,
  extlinux: /^(\s*append\s+)(.*)$/i,
};

export interface KernelLineFile {
  readonly path: string;
  readonly kind: LoaderKind;
  readonly text: string;
}

/** `root`: what holds the root file system. */
export function rewriteLoader(file: KernelLineFile, disks: Disks, root: Device): Rewritten {
  if (file.kind === 'default') return rewriteDefault(file, disks, root);
  const pattern = linePatterns[file.kind];
  const seen = new Set<string>();
  const lines = file.text.split('\n').map((line) => {
    const found = pattern.exec(line);
    if (found === null || line.trimStart().startsWith('#')) return line;
    const [, before = '', words = ''] = found;
    // Debian writes "linux16" for memtest: no kernel, and no root.
    if (file.kind === 'grub' && !/(?:^|\s)(?:root=|ro\b|rw\b)/.test(words)) return line;
    // Of an entry that takes its words from grubenv, only what is its own.
    const isElsewhere = words.includes('$kernelopts');
    return before + changedWords(words, disks, root, seen, !isElsewhere);
  });
  const text = file.kind === 'grubenv' ? sized(lines, file.text) : lines.join('\n');
  if (text === null) {
    const failed = note('failed', file.path, 'has no room for the changed words');
    return { text: file.text, notes: [failed] };
  }
  return { text, notes: notesOf(seen, file.path) };
}

const note = (kind: Note['kind'], path: string, text: string): Note => ({
  ...{ kind, about: 'kernel-line', path, text },
});
const notesOf = (seen: ReadonlySet<string>, path: string): Note[] =>
  [...seen].map((each) =>
    each.startsWith('?') ? note('warning', path, each.slice(1)) : note('changed', path, each),
  );

/** Words, with the space around them as it was. `seen` gets what was done. */
function changedWords(
  words: string,
  disks: Disks,
  root: Device,
  seen: Set<string>,
  withConsole: boolean,
): string {
  const named = words.replace(
    /(^|\s)(root|resume)=(\S+)/g,
    (all: string, space: string, name: string, spec: string) => {
      if (!isHardwareSpec(spec)) return all;
      const device = name === 'root' ? root : deviceOfSpec(spec, disks);
      const uuid = device ? uuidSpec(device) : null;
      if (uuid === null) {
        seen.add(`?${name}=${spec} is not here`);
        return all;
      }
      seen.add(`${name}=${spec} is ${name}=${uuid}`);
      return `${space}${name}=${uuid}`;
    },
  );
  return withConsole ? withSerial(named, seen) : named;
}

/** The last one becomes /dev/console: the serial line, by which a machine elsewhere is watched. */
function withSerial(words: string, seen: Set<string>): string {
  if (/(?:^|\s)console=(?:ttyS|ttyAMA|hvc)\d/.test(words)) return words;
  const own = /(?:^|\s)console=/.test(words) ? SERIAL : `${SCREEN} ${SERIAL}`;
  seen.add(`${own} added`);
  const end = words.trimEnd();
  return `${end}${end === '' ? '' : ' '}${own}${words.slice(end.length)}`;
}

/** As a shell reads it, on one line: before, the words in their quotes or one without, after. */
const assignments: readonly RegExp[] = [
  /^(\s*GRUB_CMDLINE_LINUX=)(")((?:[^"\\]|\\.)*)"(\s*(?:#.*)?)$/,
  /^(\s*GRUB_CMDLINE_LINUX=)(')([^']*)'(\s*(?:#.*)?)$/,
  /^(\s*GRUB_CMDLINE_LINUX=)()([^\s"'\\#;&|<>()$`]*)(\s*|\s+#.*)$/,
];

function rewriteDefault({ path, text }: KernelLineFile, disks: Disks, root: Device): Rewritten {
  const seen = new Set<string>();
  const hasSerial = /^\s*GRUB_CMDLINE_LINUX\w*=.*console=(?:ttyS|ttyAMA|hvc)\d/m.test(text);
  let isThere = false;
  const lines = text.split('\n').map((line) => {
    if (!/^\s*GRUB_CMDLINE_LINUX=/.test(line)) return line;
    isThere = true;
    const found = assignments.map((each) => each.exec(line)).find((each) => each !== null);
    if (found === undefined) {
      seen.add('?GRUB_CMDLINE_LINUX is written in a way that is left alone');
      return line;
    }
    const [, before = '', quote = '', words = '', after = ''] = found;
    const changed = changedWords(words, disks, root, seen, !hasSerial);
    if (changed === words) return line;
    const own = quote === '' ? '"' : quote;
    return `${before}${own}${changed}${own}${after}`;
  });
  if (!isThere && !hasSerial) {
    const words = withSerial('', seen);
    const end = lines.at(-1) === '' ? lines.length - 1 : lines.length;
    lines.splice(end, 0, `GRUB_CMDLINE_LINUX="${words}"`);
    if (end === lines.length - 1) lines.push('');
  }
  return { text: lines.join('\n'), notes: notesOf(seen, path) };
}

const GRUBENV_BYTES = 1024;

/** An environment block has its length, filled up with "#". Null where it would not fit. */
function sized(lines: readonly string[], old: string): string | null {
  const text = lines.join('\n');
  if (text === old) return old;
  const plain = `${text.replace(/#+$/, '')}`;
  const length = Buffer.byteLength(plain, 'latin1');
  return length > GRUBENV_BYTES ? null : plain + '#'.repeat(GRUBENV_BYTES - length);
}
