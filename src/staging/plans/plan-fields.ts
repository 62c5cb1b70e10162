/** Reads the fields of an object that people have written: each by its kind, the unknown refused by path. Pure. */
import { UnderstudyError } from '../../base/errors.ts';
import { parseDuration } from '../../base/units.ts';

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export class Fields {
  private readonly value: Record<string, unknown>;
  /** Path of the object: "groups[0]"; empty: the whole. */
  readonly place: string;
  private readonly read = new Set<string>();

  /** ERR_PLAN_FILE. */
  constructor(value: unknown, place: string) {
    this.place = place;
    if (!isObject(value)) throw refuse(place === '' ? 'a plan' : place, 'is an object: {...}');
    this.value = value;
  }

  has(name: string): boolean {
    return this.value[name] !== undefined && this.value[name] !== null;
  }

  wrong(name: string, message: string): UnderstudyError {
    return refuse(this.pathOf(name), message);
  }

  text(name: string, like: RegExp, shape: string): string {
    const value = this.optionalText(name, like, shape);
    if (value === null) throw this.wrong(name, `is missing: ${shape}`);
    return value;
  }

  optionalText(name: string, like: RegExp, shape: string): string | null {
    const value = this.get(name);
    if (value === null) return null;
    if (typeof value === 'string' && like.test(value)) return value;
    throw this.wrong(name, `must be ${shape}`);
  }

  texts(name: string, most: number): readonly string[] {
    const value = this.get(name) ?? [];
    const isList = Array.isArray(value) && value.length <= most;
    if (isList && value.every((each) => typeof each === 'string' && !each.includes('\0'))) {
      return value as string[];
    }
    throw this.wrong(name, `must be a list of at most ${most} texts`);
  }

  flag(name: string, standard: boolean): boolean {
    const value = this.get(name) ?? standard;
    if (typeof value === 'boolean') return value;
    throw this.wrong(name, 'must be true or false');
  }

  count(name: string, least: number, most: number, standard: number): number {
    const value = this.get(name) ?? standard;
    const isCount = Number.isSafeInteger(value);
    if (isCount && (value as number) >= least && (value as number) <= most) return value as number;
    throw this.wrong(name, `must be a whole number from ${least} to ${most}`);
  }

  choice<Word extends string>(name: string, words: readonly Word[], standard: Word): Word {
    const value = this.get(name) ?? standard;
    if (words.includes(value as Word)) return value as Word;
    throw this.wrong(name, `must be one of ${words.join(', ')}`);
  }

  /** "30s" -> milliseconds. */
  duration(name: string, leastMs: number, mostMs: number, standardMs: number): number {
    return this.optionalDuration(name, leastMs, mostMs) ?? standardMs;
  }

  optionalDuration(name: string, leastMs: number, mostMs: number): number | null {
    const value = this.get(name);
    if (value === null) return null;
    const shape = 'a time such as "30s", "10m" or "1d"';
    if (typeof value !== 'string') throw this.wrong(name, `must be ${shape}`);
    let ms: number;
    try {
      ms = parseDuration(value);
    } catch (cause) {
      const message = `${this.pathOf(name)} must be ${shape}, not "${value}"`;
      throw new UnderstudyError('ERR_PLAN_FILE', message, {}, cause);
    }
    if (ms >= leastMs && ms <= mostMs) return ms;
    throw this.wrong(name, `"${value}" is not between ${leastMs / 1000} s and ${mostMs / 1000} s`);
  }

  list(name: string, least: number, most: number): readonly Fields[] {
    const value = this.get(name) ?? [];
    if (Array.isArray(value) && value.length >= least && value.length <= most) {
      return value.map((each, index) => new Fields(each, `${this.pathOf(name)}[${index}]`));
    }
    throw this.wrong(name, `must be a list of ${least} to ${most}`);
  }

  /** One, or a list: a text, or an object. */
  oneOrMore(name: string, most: number): readonly Fields[] {
    const value = this.get(name);
    if (value === null) return [];
    const all = Array.isArray(value) ? value : [value];
    if (all.length > most) throw this.wrong(name, `must be at most ${most}`);
    const pathOf = (index: number) =>
      Array.isArray(value) ? `${this.pathOf(name)}[${index}]` : this.pathOf(name);
    return all.map(
      (each, index) =>
        new Fields(typeof each === 'string' ? { script: each } : each, pathOf(index)),
    );
  }

  object(name: string): Fields | null {
    const value = this.get(name);
    return value === null ? null : new Fields(value, this.pathOf(name));
  }

  anyObject(name: string): Readonly<Record<string, unknown>> | null {
    const value = this.get(name);
    if (value === null || isObject(value)) return value;
    throw this.wrong(name, 'is an object: {...}');
  }

  /** Texts, numbers and flags by names that somebody else knows. */
  values(name: string): Readonly<Record<string, string | number | boolean>> {
    const value = this.anyObject(name) ?? {};
    for (const [key, each] of Object.entries(value)) {
      if (!['string', 'number', 'boolean'].includes(typeof each)) {
        throw this.wrong(`${name}.${key}`, 'must be a text, a number, or true or false');
      }
    }
    return value as Record<string, string | number | boolean>;
  }

  /** After all were read. */
  end(): void {
    const unknown = Object.keys(this.value).find((name) => !this.read.has(name));
    if (unknown === undefined) return;
    throw this.wrong(unknown, `is not known here; there are ${[...this.read].join(', ')}`);
  }

  private get(name: string): unknown {
    this.read.add(name);
    return this.value[name] ?? null;
  }

  private pathOf(name: string): string {
    return this.place === '' ? name : `${this.place}.${name}`;
  }
}

const refuse = (path: string, message: string): UnderstudyError =>
  new UnderstudyError('ERR_PLAN_FILE', `${path} ${message}`);
