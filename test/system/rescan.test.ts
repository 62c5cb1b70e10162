/**
 * A disk at staging that lost some bits, and what comes of it with the whole program: a check finds it,
 * the agent is sent for what is hurt and nothing else, and all points are whole again.
 */
import { randomBytes } from 'node:crypto';
import { openSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 1 << 20;

/** Packs of a data directory, the largest first. */
function packsOf(folder: string): string[] {
  const found = readdirSync(join(folder, 'repo/packs'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  return found.sort((a, b) => statSync(b).size - statSync(a).size);
}

/** Other bytes in the middle of a file. */
function damage(path: string, part: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, randomBytes(8), 0, 8, Math.floor(statSync(path).size * part));
}

describe('damage at staging', () => {
  it('is found, and made good by the source', async () => {
    await withScratch('rescan', async (scratch) => {
      const volume = scratch.path('volume');
      writeFileSync(volume, Buffer.concat([randomBytes(24 * MIB), Buffer.alloc(8 * MIB)]));
      const staging = await Staging.start(scratch);
      startAgent(scratch, staging, { volumes: [volume], words: ['--tracker', 'scan'] });
      await staging.waitForPoints(1);
      const before = await staging.createPoint(scratch.server);
      const { generation } = before.volumes[0]!;
      const [largest] = packsOf(staging.dataFolder);
      for (const part of [0.25, 0.5, 0.75]) damage(largest!, part);
      const sent = async () => (await staging.server(scratch.server)).contentBytes;
      const sentBefore = await sent();
      const found = await staging.run('repo', 'check', '--read-data');
      expect(found.exitCode, found.out + found.err).toBe(4);
      expect(found.out).toContain('damaged-piece');
      const listed = await staging.points();
      expect(listed.find(({ id }) => id === before.id)).toMatchObject({ isDamaged: true });
      await waitFor(
        'a rescan',
        async () => {
          const [newest] = await staging.points();
          return newest !== undefined && newest.volumes[0]!.generation !== generation;
        },
        { timeoutMs: 120_000 },
      );
      await staging.createPoint(scratch.server);
      await waitFor(
        'a clean check',
        async () => {
          const { exitCode } = await staging.run('repo', 'check', '--read-data');
          return exitCode === 0;
        },
        { timeoutMs: 120_000, everyMs: 1000 },
      );
      // Three chunks of 64 KiB, and no more than a few beside them.
      expect((await sent()) - sentBefore).toBeLessThan(MIB);
      const last = await staging.run('repo', 'check', '--last');
      expect(last.exitCode, last.out).toBe(0);
      const out = scratch.path('image');
      await staging.export(before.id, volume, out);
      expect(readFileSync(out).equals(readFileSync(volume))).toBe(true);
    });
  });
});
