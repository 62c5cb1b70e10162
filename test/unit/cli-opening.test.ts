/** The line that tells that a repository is being opened: on a terminal, where it takes a while, and then gone. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { openingLine } from '../../src/cli/opening.ts';
import { createProgress, silentProgress } from '../../src/cli/progress.ts';
import { openRepositoryIn } from '../../src/store/offline.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { fixtures } from '../tools/damage-verdict.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { StoreLife, tinySettings } from './support/store-life.ts';

function world() {
  const clock = new VirtualClock();
  const drawn: string[] = [];
  const progress = () => createProgress('x', clock, 'objects', (text) => drawn.push(text));
  return { clock, drawn, context: { clock, progress } };
}

describe('the line of a repository that is being opened', () => {
  it('is not there where that is quick', async () => {
    const { clock, drawn, context } = world();
    const line = openingLine(context, false);
    await clock.runUntil(400);
    line.told('points', 1, 3);
    line.end();
    await clock.runUntil(2000);
    expect(drawn).toEqual([]);
  });

  it('comes where it takes a while, though nothing is told yet, and goes in the end', async () => {
    const { clock, drawn, context } = world();
    const line = openingLine(context, false);
    await clock.runUntil(700);
    expect(drawn).toEqual(['opening the repository']);
    line.told('packs', 0, 0);
    await clock.runUntil(900);
    line.told('packs', 7, 12);
    expect(drawn.at(-1)).toBe('opening the repository: 7 of 12 packs');
    line.end();
    expect(drawn.at(-1)).toBe('');
    // What is left to itself by a signal goes on for a moment.
    await clock.runUntil(2000);
    line.told('packs', 8, 12);
    expect(drawn.at(-1)).toBe('');
  });

  it('is not there with --json, nor without a terminal', async () => {
    const { clock, drawn, context } = world();
    const json = openingLine(context, true);
    const piped = openingLine({ clock, progress: () => silentProgress }, false);
    await clock.runUntil(2000);
    for (const line of [json, piped]) {
      line.told('packs', 7, 12);
      line.end();
    }
    expect(drawn).toEqual([]);
  });
});

it('is told what is read, and how much of it', async () => {
  const repo = mkdtempSync(join(tmpdir(), 'understudy-opening-'));
  afterAll(() => rmSync(repo, { recursive: true, force: true }));
  // No index objects: the footers of packs are read.
  cpSync(join(fixtures, 'index-missing'), repo, { recursive: true });
  const told: string[] = [];
  const onOpening = (what: string, done: number, total: number) =>
    void told.push(`${what} ${done}/${total}`);
  const place = { disk: nodeDisk, repo, objects: null, onOpening };
  await (await openRepositoryIn(place, silentLog)).close();
  expect(told.slice(0, 2)).toEqual(['points 0/0', 'points 1/5']);
  expect(told).toContain('points 5/5');
  const packs = told.filter((text) => text.startsWith('packs')).slice(1);
  expect(packs.length).toBeGreaterThan(0);
  expect(packs.at(-1)).toBe(`packs ${packs.length}/${packs.length}`);
});

it('is told the same when a service opens it', async () => {
  const life = new StoreLife(new FaultyDisk(), 5);
  await life.open(tinySettings);
  const ingest = await life.connect();
  const { id } = await life.writeAndCommit(ingest);
  await life.store!.seal(id);
  await ingest.close();
  await life.store!.close();
  life.disk.reopen();
  const told: string[] = [];
  const onOpening = (what: string, done: number, total: number) =>
    void told.push(`${what} ${done}/${total}`);
  const store = await life.open(tinySettings, { onOpening });
  expect(told).toContain('points 1/1');
  expect(told.some((text) => /^packs ([1-9]\d*)\/\1$/.test(text))).toBe(true);
  await store.close();
});
