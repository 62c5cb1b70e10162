/**
 * Policies of retention of single servers, as objects of the repository: they outlive the loss of the
 * staging machine. `policies/<server>/<number>.policy`; an object is never changed, so each change is one
 * of the next number, and the highest number counts. Those below are removed afterwards. A policy of
 * `null` means the default of the service.
 *
 * Where the highest is damaged the server's rules are not known, and nothing of it may be dropped.
 */
import { UnderstudyError } from '../base/errors.ts';
import { type KeepRule, parseKeepRules } from '../model/keep-rules.ts';
import type { RulesOf } from '../model/retention.ts';
import { type Core, temporaryPath } from './core.ts';
import { decodeJsonObject, encodeJsonObject, textOf } from './json-object.ts';
import { writeObject } from './object-file.ts';
import { damaged, isDamage, isNotFound } from './object-header.ts';

export const POLICY_MAGIC = 'US-KEEP ';

/** What the highest object of a server says. */
export interface ServerPolicy {
  readonly number: number;
  /** As it was given; null: the default of the service. */
  readonly keep: string | null;
  readonly isDamaged: boolean;
}

type Readable = Pick<Core, 'disk' | 'paths'>;

/** Numbers of a server's policies, ascending. */
export async function policyNumbers({ disk, paths }: Readable, server: string): Promise<number[]> {
  const names = (await disk.list(paths.policyFolder(server))).map(({ name }) => name);
  const numbers = names.flatMap((name) => {
    const match = /^(\d{16})\.policy$/.exec(name);
    return match === null ? [] : [Number(match[1])];
  });
  return numbers.sort((a, b) => a - b);
}

export async function policyServers({ disk, paths }: Readable): Promise<string[]> {
  const entries = await disk.list(paths.policies);
  return entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => name);
}

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function readPolicy(
  { disk, paths }: Readable,
  server: string,
  number: number,
): Promise<string | null> {
  const path = paths.policy(server, number);
  const value = decodeJsonObject(await disk.readFile(path), POLICY_MAGIC, path);
  if (textOf(value, 'server', path) !== server) throw damaged(path, 'the policy of another server');
  if (value.keep === null) return null;
  const keep = textOf(value, 'keep', path);
  try {
    parseKeepRules(keep);
  } catch (cause) {
    throw damaged(path, 'rules of another version', cause);
  }
  return keep;
}

/** At opening. */
export async function loadPolicies(core: Readable & Pick<Core, 'log' | 'policies'>): Promise<void> {
  core.policies.clear();
  for (const server of await policyServers(core)) {
    const number = (await policyNumbers(core, server)).at(-1);
    if (number === undefined) continue;
    try {
      const keep = await readPolicy(core, server, number);
      core.policies.set(server, { number, keep, isDamaged: false });
    } catch (error) {
      if (isNotFound(error)) continue;
      if (!isDamage(error)) throw error;
      core.log.error('a policy is damaged: nothing of its server is dropped', { server });
      core.policies.set(server, { number, keep: null, isDamaged: true });
    }
  }
}

/** Durable once it resolves. Called in the lane of upkeep. ERR_RETENTION_RULES, ERR_SERVER_NOT_FOUND. */
export async function setPolicy(core: Core, server: string, keep: string | null): Promise<void> {
  if (keep !== null) parseKeepRules(keep);
  if (!core.servers.has(server)) {
    throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
  }
  const numbers = await policyNumbers(core, server);
  const number = (numbers.at(-1) ?? 0) + 1;
  const time = new Date(core.clock.wallMs()).toISOString();
  const object = encodeJsonObject(POLICY_MAGIC, { server, keep, time });
  await writeObject(core.disk, temporaryPath(core), core.paths.policy(server, number), [object]);
  core.policies.set(server, { number, keep, isDamaged: false });
  core.policyVersion += 1;
  for (const former of numbers) await core.disk.remove(core.paths.policy(server, former));
  if (numbers.length > 0) await core.disk.syncDirectory(core.paths.policyFolder(server));
}

/** The rules of each server: its own, else the default ones. */
export function rulesOf(core: Pick<Core, 'policies'>, fallback: readonly KeepRule[]): RulesOf {
  return (server) => {
    const policy = core.policies.get(server);
    if (policy?.isDamaged === true) return null;
    return policy?.keep == null ? fallback : parseKeepRules(policy.keep);
  };
}
