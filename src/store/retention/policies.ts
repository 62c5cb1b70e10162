/**
 * Policies of retention of single servers, as objects of the repository: they outlive the loss of the
 * staging machine. `policies/<server>/<number>.policy`; an object is never changed, so each change is one
 * of the next number, and the highest number counts. Those below are removed afterwards. A policy of
 * `null` means the default of the service.
 *
 * Where the highest is damaged the server's rules are not known, and nothing of it may be dropped.
 */
import { basename, dirname } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { type KeepRule, parseKeepRules } from '../../model/keep-rules.ts';
import type { RulesOf } from '../../model/retention.ts';
import { type Core, type ServerPolicy, temporaryPath } from '../core.ts';
import { decodeJsonObject, encodeJsonObject, textOf } from '../format/json-object.ts';
import { parsePolicyName, policyName } from '../format/layout.ts';
import { writeObject } from '../format/object-file.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import type { KeepPolicy } from '../types.ts';

const POLICY_MAGIC = 'US-KEEP ';

type Readable = Pick<Core, 'disk' | 'paths'>;

/** Numbers of the policies in a folder, ascending. */
async function numbersIn(disk: Readable['disk'], folder: string): Promise<number[]> {
  const numbers = (await disk.list(folder)).map(({ name }) => parsePolicyName(name));
  return numbers.filter((number) => number !== null).sort((a, b) => a - b);
}

/** Paths of the policies that count: of each server the highest. */
export async function policyPaths({ disk, paths }: Readable): Promise<string[]> {
  const found: string[] = [];
  for (const { name, isDirectory } of await disk.list(paths.policies)) {
    const folder = `${paths.policies}/${name}`;
    const number = isDirectory ? (await numbersIn(disk, folder)).at(-1) : undefined;
    if (number !== undefined) found.push(`${folder}/${policyName(number)}`);
  }
  return found;
}

const numberOf = (path: string): number | null => parsePolicyName(basename(path));

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function readPolicy(
  { disk, paths }: Readable,
  path: string,
): Promise<ServerPolicy & { readonly server: string }> {
  const value = decodeJsonObject(await disk.readFile(path), POLICY_MAGIC, path);
  const server = textOf(value, 'server', path);
  if (!path.startsWith(`${paths.policyFolder(server)}/`)) {
    throw damaged(path, 'the policy of another server');
  }
  // Objects of before have no number.
  if ((value.number ?? numberOf(path)) !== numberOf(path)) {
    throw damaged(path, 'the policy of another number');
  }
  if (value.keep === null) return { server, keep: null };
  const keep = textOf(value, 'keep', path);
  try {
    parseKeepRules(keep);
  } catch (cause) {
    throw damaged(path, 'rules of another version', cause);
  }
  return { server, keep };
}

/** At opening. */
export async function loadPolicies(core: Readable & Pick<Core, 'log' | 'policies'>): Promise<void> {
  core.policies.clear();
  for (const path of await policyPaths(core)) {
    const folder = dirname(path);
    try {
      core.policies.set(folder, await readPolicy(core, path));
    } catch (error) {
      if (isNotFound(error)) continue; // replaced beside an offline reader
      if (!isDamage(error)) throw error;
      core.log.error('a policy is damaged: nothing of its server is dropped', { path });
      core.policies.set(folder, { server: null, keep: null });
    }
  }
}

/** Durable once it resolves. Called in the lane of upkeep. ERR_RETENTION_RULES, ERR_SERVER_NOT_FOUND. */
export async function setPolicy(core: Core, server: string, keep: string | null): Promise<void> {
  if (keep !== null) parseKeepRules(keep);
  if (!core.servers.has(server)) {
    throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
  }
  await writePolicy(core, server, keep, () => {
    core.policies.set(core.paths.policyFolder(server), { server, keep });
    core.policyVersion += 1;
  });
}

/** `onDurable` is called before the former ones go. */
async function writePolicy(
  core: Core,
  server: string,
  keep: string | null,
  onDurable: () => void = () => undefined,
): Promise<void> {
  const folder = core.paths.policyFolder(server);
  const numbers = await numbersIn(core.disk, folder);
  const number = (numbers.at(-1) ?? 0) + 1;
  const path = `${folder}/${policyName(number)}`;
  const time = new Date(core.clock.wallMs()).toISOString();
  const object = encodeJsonObject(POLICY_MAGIC, { server, number, keep, time });
  await writeObject(core.disk, temporaryPath(core), path, [object]);
  onDurable();
  for (const former of numbers) {
    // Where an object store keeps it for a time it stays, and does not count.
    await core.removal.remove(core.disk, `${folder}/${policyName(former)}`);
  }
  if (numbers.length > 0) await core.disk.syncDirectory(folder);
}

/**
 * A copy has the policies of its source, for the servers of which it has points: whoever takes it into
 * service keeps what the source kept. What is kept in the copy while it is one is the copy's own affair
 * (copy.ts), so they are written here and not obeyed. One that is damaged at the source changes nothing.
 */
export async function copyPolicies(source: Core, target: Core): Promise<void> {
  const servers = new Set((await target.catalog.pointNames()).map(({ server }) => server));
  const there = new Map<string, ServerPolicy>();
  await loadPolicies({ ...target, policies: there });
  for (const { server, keep } of source.policies.values()) {
    if (server === null || !servers.has(server)) continue;
    const known = there.get(target.paths.policyFolder(server));
    const isSame = known !== undefined && known.server === server && known.keep === keep;
    if (!isSame) await writePolicy(target, server, keep);
  }
}

export const shownPolicies = ({ policies }: Pick<Core, 'policies'>): KeepPolicy[] =>
  [...policies].map(([folder, { server, keep }]) => ({
    server: server ?? basename(folder),
    keep,
    isDamaged: server === null,
  }));

/** The rules of each server: its own, else the default ones. */
export function rulesOf(
  { policies, paths }: Pick<Core, 'policies' | 'paths'>,
  fallback: readonly KeepRule[],
): RulesOf {
  return (server) => {
    const policy = policies.get(paths.policyFolder(server));
    if (policy?.server === null) return null;
    return policy?.keep == null ? fallback : parseKeepRules(policy.keep);
  };
}
