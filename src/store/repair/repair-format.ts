/**
 * Repairs format.json, the one file without which nothing else is looked at. All in it but the identity is
 * the same in every repository of this version; the identity is known from the catalog, or made anew: then
 * copies of the repository know it no more, and that is said. Only where something else shows that this is
 * a repository of this version: a point that can be read. Of an encrypted one nothing is guessed.
 */
import { systemClock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { MemoryCatalog } from '../catalog/catalog-memory.ts';
import type { Core } from '../core.ts';
import { createCore } from '../create-core.ts';
import { toHex } from '../format/checksum.ts';
import { makeFolder } from '../format/object-file.ts';
import { isDamage } from '../format/object-header.ts';
import {
  clearTemporaries,
  createFormat,
  listPoints,
  readFormat,
  readNamedPoint,
} from '../repository/repository.ts';
import type { Finding } from '../types.ts';
import type { RepairStep } from './repair-world.ts';

interface FormatOptions {
  readonly disk: Disk;
  readonly log: Log;
  readonly isDryRun: boolean;
  /** The identity, where the catalog knows it. */
  readonly knownId?: string | null;
}

export interface MendedFormat {
  readonly finding: Finding;
  readonly step: RepairStep;
}

/** Null where it is well. ERR_DATA_FORMAT where it is another version's, or nothing shows what it was. */
export async function mendFormat(
  directory: string,
  options: FormatOptions,
  randomBytes: Core['randomBytes'],
): Promise<MendedFormat | null> {
  const { disk, log, knownId = null, isDryRun } = options;
  const isData = await disk.exists(`${directory}/repo`);
  const core = createCore({
    ...{ disk, log, clock: systemClock, catalog: new MemoryCatalog(), randomBytes },
    ...{ root: isData ? directory : `${directory}/repairing`, isReadOnly: true },
    repo: isData ? `${directory}/repo` : directory,
  });
  const why = await faultOf(core);
  if (why === null) return null;
  const object = core.paths.format;
  const identity = knownId === null ? 'a new identity: copies know it no more' : 'its identity';
  if (!isDryRun) {
    await makeFolder(disk, core.paths.temporary);
    await clearTemporaries(disk, core.paths);
    const id = knownId ?? toHex(randomBytes(16));
    await createFormat(core, { id, encryption: null });
  }
  return {
    finding: { kind: 'damaged-object', object, detail: why, points: [] },
    step: { object, action: `written anew, with ${identity}`, isPossible: true },
  };
}

/** What is wrong with it; null: nothing. */
async function faultOf(core: Core): Promise<string | null> {
  const { disk, paths } = core;
  let fault: unknown = null;
  try {
    if ((await readFormat(disk, paths)) !== null) return null;
  } catch (error) {
    if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DATA_FORMAT') throw error;
    if (await isOtherVersion(core)) throw error;
    fault = error;
  }
  if (await hasPoint(core)) return fault === null ? 'it is missing' : String(fault);
  if (fault !== null) throw fault;
  return null; // not a repository at all: whoever opens it says so
}

/** True where it is whole and of another version, or of an encrypted repository: it is not damage. */
async function isOtherVersion({ disk, paths }: Core): Promise<boolean> {
  try {
    const text = Buffer.from(await disk.readFile(paths.format)).toString('utf8');
    const { version, encryption } = JSON.parse(text) as { version?: unknown; encryption?: unknown };
    return (typeof version === 'number' && version !== 1) || encryption !== undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

async function hasPoint(core: Core): Promise<boolean> {
  for await (const { path } of listPoints(core)) {
    try {
      await readNamedPoint(core, path);
      return true;
    } catch (error) {
      if (!isDamage(error)) throw error;
    }
  }
  return false;
}
