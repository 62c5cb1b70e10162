/**
 * Where the scrub is and what was found last: DATA/scrub, JSON, rewritten whole (write, sync, rename, sync
 * of the folder). What cannot be read is begun anew: a round more does no harm.
 */
import type { Disk } from '../base/disk.ts';
import type { Log } from '../base/log.ts';
import { replaceFile } from '../base/replace-file.ts';
import type { Finding } from '../store/types.ts';
import type { ApiScrubRound } from './api-types.ts';

export interface ScrubRecord {
  /** Of the round that is under way, or of the last one. */
  readonly startedMs: number | null;
  /** Id of the pack that was read last. */
  readonly place: string | null;
  readonly packs: number;
  readonly bytes: number;
  /** About packs themselves, of this round: only reading finds it. */
  readonly seen: readonly Finding[];
  readonly finished: ApiScrubRound | null;
  /** Of the last check of the structure, and of the packs of this round. */
  readonly findings: readonly Finding[];
  readonly checkedMs: number | null;
}

const NAME = 'scrub';
const FORMAT = 'understudy scrub';
const blank: ScrubRecord = {
  ...{ startedMs: null, place: null, packs: 0, bytes: 0, seen: [] },
  ...{ finished: null, findings: [], checkedMs: null },
};

export async function readScrubFile(disk: Disk, folder: string, log: Log): Promise<ScrubRecord> {
  const path = `${folder}/${NAME}`;
  if (!(await disk.exists(path))) return blank;
  try {
    const text = Buffer.from(await disk.readFile(path)).toString('utf8');
    const { format, version, ...record } = JSON.parse(text) as ScrubRecord & {
      format: string;
      version: number;
    };
    if (format === FORMAT && version === 1) return { ...blank, ...record };
  } catch (error) {
    log.warn('the place of the scrub cannot be read', { path, error: String(error) });
  }
  return blank;
}

export function writeScrubFile(disk: Disk, folder: string, record: ScrubRecord): Promise<void> {
  const text = JSON.stringify({ format: FORMAT, version: 1, ...record });
  return replaceFile(disk, `${folder}/${NAME}`, [Buffer.from(text)]);
}
