/**
 * What a launch costs, roughly: one table of list prices, dated, for one region. An estimate for a dry run,
 * not a bill: other regions are up to a third dearer, and traffic is not in it. The prices of EBS direct
 * requests were looked up; those of storage and instances are from memory and want to be checked against
 * the pages of AWS. Pure.
 */

export const priceTable = {
  region: 'us-east-1',
  asOf: '2026-06',
  source: 'list prices, Linux; check aws.amazon.com/ebs/pricing and /ec2/pricing/on-demand',
  /** EBS direct API, for 1,000 requests. */
  put: 0.006,
  get: 0.003,
  list: 0.0006,
  /** For a GB and month. */
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
  /** For a CPU and hour: within a family the price follows the size. */
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
  } as Readonly<Record<string, number>>,
} as const;

const HOURS_PER_MONTH = 730;
const GB = 1e9;

export type EbsCall = 'put' | 'get' | 'list';

export const requestCost = (call: EbsCall, count: number): number =>
  (priceTable[call] * count) / 1000;

export const snapshotHour = (bytes: number): number =>
  (priceTable.snapshotGBMonth * bytes) / GB / HOURS_PER_MONTH;

export const volumeHour = (type: keyof typeof priceTable.volumeGBMonth, gib: number): number =>
  (priceTable.volumeGBMonth[type] * gib) / HOURS_PER_MONTH;

const sizes: Readonly<Record<string, number>> = { medium: 1, large: 2, xlarge: 4 };

/** Of a type by its name; null where the table does not have its family. */
export function instanceHour(type: string): number | null {
  const [family = '', size = ''] = type.split('.');
  const perCpu = priceTable.cpuHour[family];
  const times = /^(\d+)xlarge$/.exec(size)?.[1];
  const cpus = times === undefined ? sizes[size] : Number(times) * 4;
  return perCpu === undefined || cpus === undefined ? null : perCpu * cpus;
}
