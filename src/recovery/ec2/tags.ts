/**
 * The tags on all that is made in an account. IAM lets understudy change only what bears the first one, and
 * a cleanup finds what a job has made by the second, also what was made in the instant before a crash.
 */
import { createHash } from 'node:crypto';

export const managedTag = 'understudy-managed';
export const jobTag = 'understudy-job';

export interface Tag {
  readonly Key: string;
  readonly Value: string;
}

/** EC2 takes 256 characters, EBS direct one less. */
const MAX_VALUE = 255;

/** Ours last: a plan cannot replace them. */
export function tagsOf(
  job: string,
  facts: Readonly<Record<string, string>>,
  own: Readonly<Record<string, string>>,
): Tag[] {
  const all: Record<string, string> = { ...own };
  for (const [name, value] of Object.entries(facts)) all[`understudy-${name}`] = value;
  all[managedTag] = 'true';
  all[jobTag] = job;
  return Object.entries(all).map(([Key, Value]) => ({ Key, Value: Value.slice(0, MAX_VALUE) }));
}

/** A client token of the 64 characters that all calls take, always the same for the same words. */
export const clientToken = (...words: readonly (string | number)[]): string =>
  createHash('sha256').update(words.join('\n')).digest('hex');
