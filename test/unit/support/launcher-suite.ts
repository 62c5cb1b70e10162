/**
 * What every launcher must keep (`src/recovery/launcher.ts`), as one suite of tests: what it makes is
 * written down first, it can be stopped, left, found again and cleaned up.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import type { DamagedPlace } from '../../../src/recovery/damage.ts';
import type {
  CheckResult,
  ImageAddress,
  Launch,
  LaunchEnd,
  Launcher,
  LaunchOptions,
  Made,
} from '../../../src/recovery/launcher.ts';
import type { ImageReader, ListedPoint } from '../../../src/store/types.ts';

export interface LaunchWorld {
  readonly launcher: Launcher;
  /** A new folder for one job. */
  readonly root: string;
  readonly point: ListedPoint;
  readonly options: Record<string, unknown>;
  openImage(volume: string): Promise<ImageReader>;
  imageAddress(volume: string): Promise<ImageAddress>;
  /** True: what was launched runs until it is stopped. */
  readonly isLasting: boolean;
  close(): Promise<void>;
}

/** What staging keeps of one job, over the lives of the service. */
export class LaunchRecord {
  made: Made[] = [];
  notes: LaunchOptions = {};
  access: Readonly<Record<string, string>> | null = null;
  check: CheckResult | null = null;
  standsAlone = false;
  damage: readonly DamagedPlace[] = [];
  readonly said: string[] = [];
  /** Things that were there already when they were written down. */
  readonly early: string[] = [];
}

export function launchOf(
  world: LaunchWorld,
  record: LaunchRecord,
  options: LaunchOptions,
  signals: { stop: AbortSignal; leave: AbortSignal } = {
    stop: new AbortController().signal,
    leave: new AbortController().signal,
  },
): Launch {
  const { root, point } = world;
  const folder = join(root, 'job');
  mkdirSync(folder, { recursive: true });
  return {
    ...{
      jobId: 'job-1',
      kind: 'drill',
      server: point.server,
      options,
      point,
      folder,
      clock: systemClock,
      ...signals,
    },
    ...{ made: record.made, notes: record.notes, starts: 1 },
    workFolder: join(folder, 'work'),
    runFolder: join(root, 'run'),
    productFolder: join(root, 'exports'),
    damage: () => record.damage,
    openImage: (volume) => world.openImage(volume),
    imageAddress: (volume) => world.imageAddress(volume),
    async making(made) {
      if (record.made.some(({ name }) => name === made.name)) return;
      if (existsSync(made.name)) record.early.push(made.name);
      record.made.push(made);
    },
    async remember(notes) {
      record.notes = { ...record.notes, ...notes };
    },
    say: (line) => void record.said.push(line),
    phase: async () => undefined,
    progress: () => undefined,
    async up(access) {
      record.access = access;
    },
    async checked(check) {
      record.check = check;
    },
    async standsAlone() {
      record.standsAlone = true;
    },
  };
}

/** What lies in the job's folders and was not written down. */
function unaccounted(world: LaunchWorld, record: LaunchRecord): string[] {
  const known = record.made.map(({ name }) => name);
  const isKnown = (path: string): boolean =>
    known.some(
      (name) => path === name || path.startsWith(`${name}/`) || name.startsWith(`${path}/`),
    );
  return readdirSync(world.root, { recursive: true, encoding: 'utf8' })
    .map((name) => join(world.root, name))
    .filter((path) => path !== join(world.root, 'job') && dirname(path) !== join(world.root, 'job'))
    .filter((path) => !isKnown(path));
}

export function launcherSuite(name: string, createWorld: () => Promise<LaunchWorld>): void {
  const withWorld =
    (body: (world: LaunchWorld, record: LaunchRecord) => Promise<void>) => async () => {
      const world = await createWorld();
      const record = new LaunchRecord();
      try {
        await body(world, record);
      } finally {
        await world.launcher.clean(record.made);
        await world.close();
      }
    };
  const checkOf = ({ launcher, options, point, openImage }: LaunchWorld) =>
    launcher.check(options, point, openImage, 'drill');

  /** Runs until it is up, then as told. */
  async function runUntilUp(
    world: LaunchWorld,
    record: LaunchRecord,
    then: 'stop' | 'leave',
  ): Promise<LaunchEnd> {
    const stop = new AbortController();
    const leave = new AbortController();
    record.access = null;
    const options = await checkOf(world);
    const launch = launchOf(world, record, options, { stop: stop.signal, leave: leave.signal });
    const running = world.launcher.run({
      ...launch,
      async up(access) {
        await launch.up(access);
        (then === 'stop' ? stop : leave).abort();
      },
    });
    return running;
  }

  describe(`the launcher ${name}`, () => {
    it(
      'makes nothing when it checks, and refuses what it does not know',
      withWorld(async (world) => {
        const { launcher, point } = world;
        const before = readdirSync(world.root, { recursive: true });
        expect(await checkOf(world)).toMatchObject({});
        await expect(
          launcher.check({ noSuchOption: 1 }, point, world.openImage, 'drill'),
        ).rejects.toMatchObject({ code: 'ERR_LAUNCH_OPTIONS' });
        expect(readdirSync(world.root, { recursive: true })).toEqual(before);
      }),
    );

    it(
      'writes everything down before it is made, and cleans all of it up, as often as asked',
      withWorld(async (world, record) => {
        expect(await runUntilUp(world, record, 'stop')).toBe('done');
        expect(record.early).toEqual([]);
        expect(record.made.length).toBeGreaterThan(0);
        expect(unaccounted(world, record)).toEqual([]);
        await world.launcher.clean(record.made);
        await world.launcher.clean(record.made);
        expect(record.made.filter(({ name: path }) => existsSync(path))).toEqual([]);
      }),
    );

    it(
      'cleans up what was written down and never made',
      withWorld(async (world) => {
        const launch = launchOf(world, new LaunchRecord(), {});
        await world.launcher.clean([
          { kind: 'folder', name: launch.workFolder },
          { kind: 'process', name: join(launch.runFolder, 'none.pid') },
        ]);
      }),
    );

    it(
      'is found again by another life, or has done its work',
      withWorld(async (world, record) => {
        const first = await runUntilUp(world, record, 'leave');
        expect(first).toBe(world.isLasting ? 'left' : 'done');
        const made = [...record.made];
        expect(await runUntilUp(world, record, 'stop')).toBe('done');
        expect(record.made).toEqual(made);
        expect(record.access).not.toBe(null);
      }),
    );

    it(
      'that was stopped before it began makes an end of it',
      withWorld(async (world, record) => {
        const stopped = AbortSignal.abort();
        const leave = new AbortController().signal;
        const options = await checkOf(world);
        const launch = launchOf(world, record, options, { stop: stopped, leave });
        await world.launcher.run(launch).catch((error: unknown) => {
          expect(error).toBeInstanceOf(Error);
        });
        await world.launcher.clean(record.made);
        expect(record.made.filter(({ name: path }) => existsSync(path))).toEqual([]);
      }),
    );
  });
}
