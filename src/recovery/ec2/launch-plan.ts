/**
 * The launch plan: how a server's stand-in shall look in an account. JSON written by people, so every field
 * is checked, an unknown one is an error, and messages name the field. PLAN.md describes it. Pure.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ChainEncryption } from './chain.ts';
import type { SourceSize } from './right-size.ts';

export type Architecture = 'x86_64' | 'arm64';

export interface LaunchPlan {
  readonly region: string | null;
  /** A type by its name, or null: by the right-sizing rule, from `source` or what the agent told. */
  readonly instanceType: string | null;
  readonly source: SourceSize | null;
  /** Families to choose from; null: the default ones of the architecture. */
  readonly families: readonly string[] | null;
  /** Null: as the agent told. */
  readonly architecture: Architecture | null;
  readonly bootMode: 'auto' | 'legacy-bios' | 'uefi' | 'uefi-preferred';
  /** The volume that boots; null: the point's first. */
  readonly rootVolume: string | null;
  readonly subnetId: string | null;
  readonly securityGroupIds: readonly string[];
  readonly instanceProfile: string | null;
  readonly keyName: string | null;
  readonly privateAddress: string | null;
  readonly hasPublicAddress: boolean | null;
  readonly tags: Readonly<Record<string, string>>;
  readonly launchTemplate: { readonly id: string; readonly version: string } | null;
  readonly encryption: ChainEncryption | null;
  readonly volumeType: 'gp3' | 'gp2' | 'io2' | 'io1' | 'st1' | 'sc1' | 'standard';
  readonly iops: number | null;
  readonly throughputMiB: number | null;
  /** Whether volumes stay when the instance is terminated; null: those of a failover do. */
  readonly keepsVolumes: boolean | null;
}

const volumeTypes = ['gp3', 'gp2', 'io2', 'io1', 'st1', 'sc1', 'standard'] as const;
const bootModes = ['auto', 'legacy-bios', 'uefi', 'uefi-preferred'] as const;
const architectures = ['x86_64', 'arm64'] as const;

/** Text of a plan -> the plan. ERR_EC2_PLAN names the field. */
export function parsePlan(text: string, name: string): LaunchPlan {
  const fields = fieldsOf(text, name);
  const plan = readPlan(fields);
  fields.end();
  holdTogether(plan, fields);
  return plan;
}

function fieldsOf(text: string, name: string): Fields {
  try {
    return new Fields(JSON.parse(text), name, '');
  } catch (cause) {
    if (cause instanceof UnderstudyError) throw cause;
    throw new UnderstudyError('ERR_EC2_PLAN', `${name} is not JSON`, { path: name }, cause);
  }
}

/** Of a plan what the rolling chain needs; no more has to be there. ERR_EC2_PLAN. */
export function parseChainPlan(
  text: string,
  name: string,
): Pick<LaunchPlan, 'region' | 'encryption' | 'tags'> {
  const fields = fieldsOf(text, name);
  const { region, encryption, tags } = readPlan(fields);
  fields.end();
  return { region, encryption, tags };
}

function readPlan(fields: Fields): LaunchPlan {
  const type = fields.text('instanceType', /^(auto|[a-z][a-z0-9-]*\.[a-z0-9-]+)$/, 'm6i.large');
  return {
    region: fields.text('region', /^[a-z]{2}(-[a-z]+)+-\d$/, 'eu-central-1'),
    instanceType: type === 'auto' ? null : type,
    source: fields.object('source', (source) => ({
      cpus: source.number('cpus', 1, 4096) ?? source.lacks('cpus'),
      memoryGiB: source.number('memoryGiB', 0.1, 65_536, false) ?? source.lacks('memoryGiB'),
    })),
    families: fields.texts('families', /^[a-z][a-z0-9-]*$/, 'm6i'),
    architecture: fields.choice('architecture', architectures),
    bootMode: fields.choice('bootMode', bootModes) ?? 'auto',
    rootVolume: fields.text('rootVolume', /^.+$/, '/dev/vda'),
    subnetId: fields.text('subnetId', /^subnet-[0-9a-f]+$/, 'subnet-0a1b2c3d'),
    securityGroupIds: fields.texts('securityGroupIds', /^sg-[0-9a-f]+$/, 'sg-0a1b2c3d') ?? [],
    instanceProfile: fields.text('instanceProfile', /^[\w+=,.@:/-]+$/, 'web-server'),
    keyName: fields.text('keyName', /^.{1,255}$/, 'ops'),
    privateAddress: fields.text('privateAddress', /^\d{1,3}(\.\d{1,3}){3}$/, '10.0.0.7'),
    hasPublicAddress: fields.flag('publicAddress'),
    tags: fields.tags('tags'),
    launchTemplate: fields.object('launchTemplate', (template) => ({
      id: template.text('id', /^lt-[0-9a-f]+$/, 'lt-0a1b2c3d') ?? template.lacks('id'),
      version: template.text('version', /^(\d+|\$Latest|\$Default)$/, '3') ?? '$Default',
    })),
    encryption: encryptionOf(fields),
    volumeType: fields.choice('volumeType', volumeTypes) ?? 'gp3',
    iops: fields.number('iops', 100, 256_000),
    throughputMiB: fields.number('throughputMiB', 125, 2000),
    keepsVolumes: fields.flag('keepVolumes'),
  };
}

function encryptionOf(fields: Fields): ChainEncryption | null {
  const arn = /^arn:aws[a-z-]*:kms:[^:]+:\d{12}:key\/.+$/;
  const kmsKeyArn = fields.text('kmsKeyArn', arn, 'arn:aws:kms:REGION:ACCOUNT:key/ID');
  const isWanted = fields.flag('encrypted');
  if (kmsKeyArn !== null && isWanted === false) {
    throw fields.wrong('encrypted', 'is false, but there is a kmsKeyArn');
  }
  return kmsKeyArn === null && isWanted !== true ? null : { kmsKeyArn };
}

/** What one field says about another. */
function holdTogether(plan: LaunchPlan, fields: Fields): void {
  if (plan.subnetId === null && plan.launchTemplate === null) {
    throw fields.wrong('subnetId', 'is needed where there is no launchTemplate');
  }
  const ownsInterface = plan.privateAddress !== null || plan.hasPublicAddress !== null;
  if (ownsInterface && plan.subnetId === null) {
    throw fields.wrong('subnetId', 'is needed with privateAddress or publicAddress');
  }
  if (plan.throughputMiB !== null && plan.volumeType !== 'gp3') {
    throw fields.wrong('throughputMiB', `is for gp3, not for ${plan.volumeType}`);
  }
  if (plan.iops !== null && !['gp3', 'io1', 'io2'].includes(plan.volumeType)) {
    throw fields.wrong('iops', `is not for ${plan.volumeType}`);
  }
  if (plan.iops === null && ['io1', 'io2'].includes(plan.volumeType)) {
    throw fields.wrong('iops', `is needed for ${plan.volumeType}`);
  }
}

/** Typed access to an object of unknown shape; what was not asked for is an error at the end. */
class Fields {
  private readonly values: Readonly<Record<string, unknown>>;
  private readonly name: string;
  private readonly prefix: string;
  private readonly asked = new Set<string>();

  constructor(value: unknown, name: string, prefix: string) {
    this.name = name;
    this.prefix = prefix;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new UnderstudyError('ERR_EC2_PLAN', `${name}: ${prefix || 'the plan'} is no object`);
    }
    this.values = value as Record<string, unknown>;
  }

  text(field: string, pattern: RegExp, example: string): string | null {
    const value = this.take(field);
    if (value === null) return null;
    if (typeof value === 'string' && pattern.test(value)) return value;
    throw this.wrong(field, `is ${shown(value)}, not a text like "${example}"`);
  }

  texts(field: string, pattern: RegExp, example: string): string[] | null {
    const value = this.take(field);
    if (value === null) return null;
    const isRight = (item: unknown) => typeof item === 'string' && pattern.test(item);
    if (Array.isArray(value) && value.length > 0 && value.every(isRight)) return value;
    throw this.wrong(field, `is ${shown(value)}, not a list like ["${example}"]`);
  }

  choice<T extends string>(field: string, choices: readonly T[]): T | null {
    const value = this.take(field);
    if (value === null) return null;
    const chosen = choices.find((choice) => choice === value);
    if (chosen !== undefined) return chosen;
    throw this.wrong(field, `is ${shown(value)}, none of ${choices.join(', ')}`);
  }

  number(field: string, least: number, most: number, isWhole = true): number | null {
    const value = this.take(field);
    if (value === null) return null;
    const isRight = typeof value === 'number' && value >= least && value <= most;
    if (isRight && (!isWhole || Number.isInteger(value))) return value;
    const kind = isWhole ? 'a whole number' : 'a number';
    throw this.wrong(field, `is ${shown(value)}, not ${kind} from ${least} to ${most}`);
  }

  flag(field: string): boolean | null {
    const value = this.take(field);
    if (value === null || typeof value === 'boolean') return value;
    throw this.wrong(field, `is ${shown(value)}, neither true nor false`);
  }

  object<T>(field: string, read: (fields: Fields) => T): T | null {
    const value = this.take(field);
    if (value === null) return null;
    const inner = new Fields(value, this.name, `${this.prefix}${field}.`);
    const made = read(inner);
    inner.end();
    return made;
  }

  tags(field: string): Record<string, string> {
    const value = this.take(field) ?? {};
    const isObject = typeof value === 'object' && !Array.isArray(value);
    const entries = isObject ? Object.entries(value) : null;
    if (entries === null || entries.length > 40) {
      throw this.wrong(field, 'is no object of at most 40 names and values');
    }
    for (const [key, text] of entries) {
      const isName = key.length <= 127 && !/^(aws:|understudy-)/i.test(key) && key !== '';
      if (isName && typeof text === 'string' && text.length <= 255) continue;
      throw this.wrong(field, `cannot have ${shown(key)}: ${shown(text)}`);
    }
    return Object.fromEntries(entries) as Record<string, string>;
  }

  lacks(field: string): never {
    throw this.wrong(field, 'is missing');
  }

  wrong(field: string, what: string): UnderstudyError {
    const message = `${this.name}: ${this.prefix}${field} ${what}`;
    return new UnderstudyError('ERR_EC2_PLAN', message, { path: this.name });
  }

  end(): void {
    const unknown = Object.keys(this.values).find((field) => !this.asked.has(field));
    if (unknown !== undefined) {
      throw this.wrong(unknown, `is no field; there are ${[...this.asked].join(', ')}`);
    }
  }

  private take(field: string): NonNullable<unknown> | null {
    this.asked.add(field);
    return this.values[field] ?? null;
  }
}

const shown = (value: unknown): string => JSON.stringify(value)?.slice(0, 60) ?? String(value);
