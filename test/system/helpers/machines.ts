/** Machines that jobs have launched: found by the folders that their command lines name. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { ApiJob } from '../../../src/staging/api-types.ts';
import { sh } from './device.ts';
import type { Scratch } from './scratch.ts';
import { type Ran, type Staging, startAgent } from './understudy.ts';
import { waitFor } from './wait.ts';

/** One boot takes 8 s on an idle machine of two cores, without KVM. */
export const BOOT_MS = 120_000;

/**
 * Of the ports that nobody gets by chance: those above are given to whoever asks for any, and to connections that go
 * out, and a test uses its port minutes later.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port)) return port;
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });

/** QEMU and the servers of its disks, by their command lines. */
export const isMachine = /^(?:qemu-system|[^\0]*node\0[^\0]*image-server-process)/;

/** What runs for the jobs of a service: by the folder that their command lines name. */
export function machinesOf(job: ApiJob): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((id) => (existsSync(`/proc/${id}/cmdline`) ? cmdline(id) : ''))
    .filter((words) => words.includes(`/${job.id}/`) && isMachine.test(words));
}
function cmdline(id: string): string {
  try {
    return readFileSync(`/proc/${id}/cmdline`, 'latin1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return '';
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

export const consoleOf = (job: ApiJob): string => {
  const path = join(job.folder, 'console.log');
  return existsSync(path) ? readFileSync(path, 'latin1') : '';
};

/** What a job leaves when it is over: the evidence, and nothing that runs or is large. */
export function expectGone(job: ApiJob): void {
  expect(machinesOf(job)).toEqual([]);
  expect(existsSync(join(job.folder, 'work'))).toBe(false);
  const folders = job.made.filter(({ isProduct }) => isProduct !== true);
  expect(folders.filter(({ name }) => existsSync(name))).toEqual([]);
}

/** A file replicated by an agent that scans it; the agent is stopped at the first new point. */
export async function replicate(
  scratch: Scratch,
  staging: Staging,
  disk: string,
  server = 'guest',
): Promise<string> {
  const newest = async () => (await staging.points()).find((point) => point.server === server)?.id;
  const before = await newest();
  const words = ['--tracker', 'scan'];
  const agent = startAgent(scratch, staging, { volumes: [disk], server, words });
  await waitFor('a point', async () => (await newest()) !== before, { timeoutMs: BOOT_MS });
  await agent.stop();
  return (await newest())!;
}

/** One line that names the error, one that helps, the code, the exit code. */
export function expectRefusal(ran: Ran, code: string, exitCode: number): void {
  // Besides what is logged, and what a launch had to warn of.
  const lines = ran.err.split('\n').filter((line) => !/^(?:$|\{|warning: )/.test(line));
  expect(lines, ran.err).toHaveLength(2);
  expect(lines[0]).toMatch(new RegExp(`^error: .+ \\(${code}\\)$`));
  expect(lines[1]).toMatch(/^hint: .+/);
  expect(ran.exitCode).toBe(exitCode);
}

/** Ends what a failed test has left running: by the folder of the sockets, which is the data folder's. */
export function endAll(dataFolder: string): void {
  const jobs = join(dataFolder, 'jobs');
  if (!existsSync(jobs)) return;
  for (const id of readdirSync(jobs)) {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      const words = cmdline(pid);
      if (words.includes(`/${id}/`) && isMachine.test(words)) sh('kill', '-9', pid);
    }
  }
}

/** What a program of the guest answers, by a forwarded port; a guest that is not up yet may never answer. */
export async function askGuest(
  port: number,
  name: string,
  query = '',
  timeoutMs = 60_000,
): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/cgi-bin/${name}?${query}`, {
    signal: AbortSignal.timeout(timeoutMs),
  });
  return (await response.text()).trim();
}
