/**
 * What a preparation found and did: prepare.json in the folder of the job, and lines of its log. Texts that
 * come from the disk are shown as they were, bounded, without control characters.
 */
import { plain } from '../plain-text.ts';

export type NoteKind =
  /** As it should be. */
  | 'found'
  | 'changed'
  /** It may boot all the same; look at it. */
  | 'warning'
  /** Could not be done. */
  | 'failed';

export interface Note {
  readonly kind: NoteKind;
  /** "fstab", "initramfs", "kernel-line", "network", "agent", "root". */
  readonly about: string;
  /** The file, where it is one. */
  readonly path: string;
  readonly text: string;
}

export interface PrepareReport {
  readonly format: 1;
  /** 'unknown': no root of a Linux was found, and nothing was changed. */
  readonly state: 'prepared' | 'unknown';
  readonly root: string;
  readonly system: string;
  readonly notes: readonly Note[];
  readonly tookMs: number;
}

const MAX_TEXT = 400;
const MAX_NOTES = 500;

const shown = (text: string): string => plain(text).slice(0, MAX_TEXT);

/** Notes in the order in which they were made; bounded, for a disk may hold a million lines. */
export class Notes {
  readonly all: Note[] = [];

  add(kind: NoteKind, about: string, path: string, text: string): void {
    if (this.all.length >= MAX_NOTES) return;
    this.all.push({ kind, about, path: shown(path), text: shown(text) });
  }

  addAll(notes: readonly Note[]): void {
    for (const { kind, about, path, text } of notes) this.add(kind, about, path, text);
  }
}

export const noteLine = ({ kind, about, path, text }: Note): string => {
  const where = path === '' ? '' : ` ${path}:`;
  const mark = kind === 'warning' || kind === 'failed' ? `${kind.toUpperCase()} ` : '';
  return `prepare: ${mark}${about}:${where} ${text}`;
};
