/**
 * Repairs format.json, the one file without which nothing else is looked at. One bit that changed is turned back,
 * as the file's checksum proves. Else all in it but the identity is the same in every repository of its version;
 * of an encrypted one the keys prove what it said. Of a plain one the identity is known from the catalog, or made
 * anew: then copies of the repository know it no more, and that is said. Only where something else shows that
 * this is a repository of this version: a point that can be read.
 *
 * In a bucket nothing is written over: there the damaged one goes first. Cut short it is missing, and then no
 * service makes a repository there, and a repair goes on.
 */
import { systemClock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { MemoryCatalog } from '../catalog/catalog-memory.ts';
import { type Core, temporaryPath } from '../core.ts';
import { createCore } from '../create-core.ts';
import { toHex } from '../format/checksum.ts';
import {
  encodeFormat,
  type Format,
  formatFault,
  readFormatObject,
  withoutFlip,
} from '../format/format.ts';
import { makeFolder, writeObject } from '../format/object-file.ts';
import { isDamage } from '../format/object-header.ts';
import { formatOfKeys, type KeyOptions } from '../keys/open-vault.ts';
import { removeUnlessKept } from '../objects/removal.ts';
import { clearTemporaries, listPoints, readNamedPoint } from '../repository/repository.ts';
import type { Finding } from '../types.ts';
import { LOCKED, type RepairStep } from './repair-world.ts';

interface FormatOptions {
  readonly disk: Disk;
  readonly log: Log;
  readonly isDryRun: boolean;
  /** The identity, where the catalog knows it. */
  readonly knownId?: string | null;
  readonly keys?: KeyOptions | undefined;
  /** Of a bucket: the folder for what has no name yet, on the local disk. */
  readonly scratch?: string | undefined;
}

export interface MendedFormat {
  readonly finding: Finding;
  readonly step: RepairStep;
}

/** What is wrong with it, and what it was to say. */
interface Mend {
  readonly why: string;
  readonly action: string;
  readonly bytes: Uint8Array;
}

type Options = FormatOptions & { readonly randomBytes: Core['randomBytes'] };

/**
 * Null where it is well. ERR_DATA_FORMAT where it is another version's, or nothing shows what it was;
 * ERR_KEY_REQUIRED where only a key can.
 */
export async function mendFormat(
  directory: string,
  given: FormatOptions,
  randomBytes: Core['randomBytes'],
): Promise<MendedFormat | null> {
  const options = { ...given, randomBytes };
  const core = await coreOf(directory, options);
  const mend = await mendOf(core, options);
  if (mend === null) return null;
  const object = core.paths.format;
  const isPossible = given.isDryRun || (await replace(core, mend.bytes));
  return {
    finding: { kind: 'damaged-object', object, detail: mend.why, points: [] },
    step: { object, action: isPossible ? mend.action : LOCKED, isPossible },
  };
}

async function coreOf(directory: string, options: Options): Promise<Core> {
  const { disk, log, scratch, randomBytes } = options;
  const isData = scratch === undefined && (await disk.exists(`${directory}/repo`));
  return createCore({
    ...{ disk, log, clock: systemClock, catalog: new MemoryCatalog(), randomBytes },
    ...{ root: isData ? directory : (scratch ?? `${directory}/repairing`), isReadOnly: true },
    repo: isData ? `${directory}/repo` : directory,
  });
}

/** False where the object store keeps the damaged one for a time. */
async function replace(core: Core, bytes: Uint8Array): Promise<boolean> {
  const { disk, paths } = core;
  await makeFolder(disk, paths.temporary);
  await clearTemporaries(disk, paths);
  if (disk.together !== undefined && !(await removeUnlessKept(disk, paths.format))) return false;
  // By this name the temporary file is not sealed either.
  await writeObject(disk, `${temporaryPath(core)}.json`, paths.format, [bytes]);
  return true;
}

async function mendOf(core: Core, options: Options): Promise<Mend | null> {
  const { disk, paths } = core;
  const bytes = (await disk.exists(paths.format)) ? await disk.readFile(paths.format) : null;
  const look = await lookAt(core, bytes);
  if (look === null) return null;
  const { why } = look;
  const before = bytes && withoutFlip(bytes);
  if (before !== null) {
    return { why, action: 'one bit of it is turned back, as its checksum shows', bytes: before };
  }
  const hasKeys = (await disk.list(paths.keys)).length > 0;
  if (look.error !== null && bytes !== null && isOtherVersion(bytes, hasKeys)) throw look.error;
  const created = (format: Format) => encodeFormat(format, core.clock.wallMs(), copyOfIn(bytes));
  if (hasKeys) {
    const format = await fromKeys(core, options);
    return {
      why,
      action: 'written anew, as the keys of the repository say',
      bytes: created(format),
    };
  }
  if (!(await hasPoint(core))) {
    if (look.error !== null) throw look.error;
    return null; // not a repository at all: whoever opens it says so
  }
  const id = options.knownId ?? look.id;
  const identity = id === null ? 'a new identity: copies know it no more' : 'its identity';
  const format = { id: id ?? toHex(options.randomBytes(16)), encryption: null };
  return { why, action: `written anew, with ${identity}`, bytes: created(format) };
}

interface Look {
  readonly why: string;
  /** With which it is refused. */
  readonly error: UnderstudyError | null;
  /** The identity of one that can be read all the same. */
  readonly id: string | null;
}

/** Null: nothing is wrong with it. */
async function lookAt({ disk, paths }: Core, bytes: Uint8Array | null): Promise<Look | null> {
  if (bytes === null) return { why: 'it is missing', error: null, id: null };
  try {
    const found = await readFormatObject(disk, paths);
    const why = formatFault(bytes);
    return why === null ? null : { why, error: null, id: found?.id ?? null };
  } catch (error) {
    if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DATA_FORMAT') throw error;
    return { why: String(error), error, id: null };
  }
}

/** What can be read of it, whatever it is. */
function fieldsOf(bytes: Uint8Array): Record<string, unknown> {
  try {
    return (JSON.parse(Buffer.from(bytes).toString('utf8')) ?? {}) as Record<string, unknown>;
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

/** True where it is whole and of another version, or of an encrypted repository whose keys are gone: no damage. */
function isOtherVersion(bytes: Uint8Array, hasKeys: boolean): boolean {
  const { version, encryption } = fieldsOf(bytes);
  const isKnown = version === 1 || (version === 2 && hasKeys);
  return (typeof version === 'number' && !isKnown) || (encryption !== undefined && !hasKeys);
}

/** A copy stays one. */
function copyOfIn(bytes: Uint8Array | null): object {
  const { copyOf } =
    bytes === null ? {} : (fieldsOf(bytes) as { copyOf?: { repository?: unknown } });
  const isWhole = /^[0-9a-f]{32}$/.test(String(copyOf?.repository));
  return isWhole ? { copyOf: { repository: copyOf?.repository } } : {};
}

async function fromKeys(core: Core, { keys, randomBytes }: Options): Promise<Format> {
  const { disk, paths, clock } = core;
  if (keys === undefined) {
    const message = `${paths.format}: it is damaged, and the repository has keys: give the one that opens it`;
    throw new UnderstudyError('ERR_KEY_REQUIRED', message, { path: paths.format });
  }
  const world = { disk, paths, randomBytes, nowMs: clock.wallMs() };
  return formatOfKeys(world, keys);
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
