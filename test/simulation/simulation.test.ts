/**
 * Whole worlds from seeds: eight in the test command, thousands with --full (or on demand with
 * run.ts). And the canaries: with one part of the scheme taken out, worlds must break, or they prove
 * nothing.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FULL_SCHEME } from './tracker.ts';
import { Breach, World, type WorldOptions } from './world.ts';

const FULL = process.env.TEST_FULL === '1';
const SEEDS = FULL ? 3000 : 8;
const LANES = 2;
const TIMEOUT_MS = FULL ? 4 * 3600e3 : 30 * 60e3;

/** Runs a lane's seeds in a process of its own; rejects with what it printed: the replay command is in it. */
function runLane(from: number, count: number): Promise<string> {
  const script = join(import.meta.dirname, 'run.ts');
  const child = spawn(process.execPath, [script, '--from', `${from}`, '--seeds', `${count}`]);
  let printed = '';
  const collect = (part: Buffer) => {
    printed += part.toString();
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(printed) : reject(new Error(printed))));
  });
}

/** The first breach among `seeds` worlds, or null. */
async function firstBreach(seeds: number, options: Omit<WorldOptions, 'seed'>) {
  for (let seed = 1; seed <= seeds; seed += 1) {
    try {
      await new World({ ...options, seed }).run();
    } catch (error) {
      if (error instanceof Breach) return error.message;
      throw error;
    }
  }
  return null;
}

describe('the simulated world', () => {
  it(`keeps the promises under faults in ${SEEDS} worlds`, { timeout: TIMEOUT_MS }, async () => {
    const count = SEEDS / LANES;
    const lanes = Array.from({ length: LANES }, (_, lane) => runLane(1 + lane * count, count));
    for (const printed of await Promise.all(lanes)) expect(printed).toContain(`${count} worlds`);
  });

  it('is the same again from the same seed', { timeout: TIMEOUT_MS }, async () => {
    const once = async () => {
      const lines: string[] = [];
      const report = await new World({ seed: 11, onLog: (line) => lines.push(line) }).run();
      return { report, log: createHash('sha256').update(lines.join('\n')).digest('hex') };
    };
    expect(await once()).toEqual(await once());
  });

  const canaries: [string, RegExp, Omit<WorldOptions, 'seed'>][] = [
    ['validation is left out (P2)', /may hold/, { rules: { ...FULL_SCHEME, validate: false } }],
    [
      'writes in flight are forgotten (P1)',
      /may hold/,
      { rules: { ...FULL_SCHEME, inFlight: false } },
    ],
    ['queue marks are left out (P2)', /may hold/, { rules: { ...FULL_SCHEME, queueMarks: false } }],
    ['the disk says synced and is not (P4)', /gone|failed|damaged|staging/, { syncLies: true }],
  ];
  it.each(canaries)('breaks when %s', { timeout: TIMEOUT_MS }, async (_, message, options) => {
    expect(await firstBreach(20, options)).toMatch(message);
  });
});
