/**
 * What a launch costs, roughly: a table of list prices, dated, for one region. An estimate for a dry run,
 * not a bill: other regions are up to a third dearer, and traffic is not in it. The prices of EBS direct
 * requests were looked up; those of storage and instances are from memory and want to be checked against
 * the pages of AWS, or replaced by a table of the operator's own. Pure.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { LaunchPlan } from './launch-plan.ts';

export interface PriceTable {
  readonly region: string;
  readonly asOf: string;
  readonly source: string;
  /** EBS direct API, for 1,000 requests. */
  readonly put: number;
  readonly get: number;
  readonly list: number;
  /** For a GB and month. */
  readonly snapshotGBMonth: number;
  readonly volumeGBMonth: Readonly<Record<LaunchPlan['volumeType'], number>>;
  /** By family, for a CPU and hour: within a family the price follows the size. */
  readonly cpuHour: Readonly<Record<string, number>>;
  /** By type, for an hour: goes before its family's. */
  readonly instanceHour: Readonly<Record<string, number>>;
}

export const standardPrices: PriceTable = {
  region: 'us-east-1',
  asOf: '2026-06',
  source:
    'requests as published; storage and instances from memory, not checked: see ' +
    'aws.amazon.com/ebs/pricing and aws.amazon.com/ec2/pricing/on-demand',
  put: 0.006,
  get: 0.003,
  list: 0.0006,
  snapshotGBMonth: 0.05,
  volumeGBMonth: {
    gp3: 0.08,
    gp2: 0.1,
    io1: 0.125,
    io2: 0.125,
    st1: 0.045,
    sc1: 0.015,
    standard: 0.05,
  },
  cpuHour: {
    m5: 0.048,
    c5: 0.0425,
    r5: 0.063,
    m6i: 0.048,
    c6i: 0.0425,
    r6i: 0.063,
    m7i: 0.0504,
    c7i: 0.044625,
    r7i: 0.06615,
    m7g: 0.0408,
    c7g: 0.03625,
    r7g: 0.05355,
  },
  instanceHour: {},
};

const wrong = (path: string, what: string): UnderstudyError =>
  new UnderstudyError('ERR_EC2_PLAN', `${path}: ${what}`, { path });

/**
 * A table of the operator's own, over the standard one: any of its fields; `region`, `asOf` and `source`
 * have to be there, for they say what the others are worth. ERR_EC2_PLAN names the field.
 */
export function parsePrices(text: string, path: string): PriceTable {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (cause) {
    throw new UnderstudyError('ERR_EC2_PLAN', `${path} is not JSON`, { path }, cause);
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw wrong(path, 'the prices are no object');
  }
  const merged: Record<string, unknown> = { ...standardPrices };
  for (const [name, value] of Object.entries(given)) {
    const standard = (standardPrices as unknown as Record<string, unknown>)[name];
    if (standard === undefined) {
      const known = Object.keys(standardPrices).join(', ');
      throw wrong(path, `${name} is no field; there are ${known}`);
    }
    merged[name] = checkedPrice(path, name, value, standard);
  }
  for (const name of ['region', 'asOf', 'source']) {
    if (!Object.hasOwn(given, name)) throw wrong(path, `${name} is missing: what these prices are`);
  }
  return merged as unknown as PriceTable;
}

const isPrice = (value: unknown): boolean =>
  typeof value === 'number' && Number.isFinite(value) && value >= 0;

function checkedPrice(path: string, name: string, value: unknown, standard: unknown): unknown {
  if (typeof standard === 'string') {
    if (typeof value === 'string' && value !== '') return value;
    throw wrong(path, `${name} is no text`);
  }
  if (typeof standard === 'number') {
    if (isPrice(value)) return value;
    throw wrong(path, `${name} is no price`);
  }
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  const entries = isObject ? Object.entries(value) : [];
  const odd = entries.find(([, price]) => !isPrice(price));
  if (!isObject || odd !== undefined) throw wrong(path, `${name}.${odd?.[0] ?? ''} is no price`);
  return { ...(standard as object), ...value };
}

const HOURS_PER_MONTH = 730;
const GB = 1e9;

export type EbsCall = 'put' | 'get' | 'list';

export const requestCost = (prices: PriceTable, call: EbsCall, count: number): number =>
  (prices[call] * count) / 1000;

export const snapshotHour = (prices: PriceTable, bytes: number): number =>
  (prices.snapshotGBMonth * bytes) / GB / HOURS_PER_MONTH;

export const volumeHour = (
  prices: PriceTable,
  type: LaunchPlan['volumeType'],
  gib: number,
): number => (prices.volumeGBMonth[type] * gib) / HOURS_PER_MONTH;

const sizes: Readonly<Record<string, number>> = { medium: 1, large: 2, xlarge: 4 };

/** Of a type by its name; null where the table does not have its family. */
export function instanceHour(prices: PriceTable, type: string): number | null {
  const own = prices.instanceHour[type];
  if (own !== undefined) return own;
  const [family = '', size = ''] = type.split('.');
  const perCpu = prices.cpuHour[family];
  const times = /^(\d+)xlarge$/.exec(size)?.[1];
  const cpus = times === undefined ? sizes[size] : Number(times) * 4;
  return perCpu === undefined || cpus === undefined ? null : perCpu * cpus;
}
