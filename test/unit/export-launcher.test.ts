/** The target `export`: the contract of launchers, and files that are the images. */
import { hash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createExportLauncher } from '../../src/recovery/export-launcher.ts';
import type { ImageReader } from '../../src/store/types.ts';
import { fakePoint } from './support/fake-backend.ts';
import {
  LaunchRecord,
  type LaunchWorld,
  launcherSuite,
  launchOf,
} from './support/launcher-suite.ts';

const exportLauncher = createExportLauncher();

const image = Buffer.alloc(3 * 2 ** 20, 0);
image.fill('content ', 2 ** 20, 2 ** 20 + 5000);

const readerOf = (bytes: Buffer): ImageReader => ({
  sizeBytes: bytes.length,
  etag: hash('sha256', bytes),
  read: async (offset, length) => new Uint8Array(bytes.subarray(offset, offset + length)),
  nextData: async (offset) =>
    offset >= bytes.length ? null : { offset, length: bytes.length - offset },
  close: () => undefined,
});

async function createWorld(options: Record<string, unknown> = {}): Promise<LaunchWorld> {
  const root = mkdtempSync(join(tmpdir(), 'understudy-export-'));
  return {
    ...{ launcher: exportLauncher, root, options, point: fakePoint('p'), isLasting: false },
    openImage: async () => readerOf(image),
    imageAddress: () => Promise.reject(new Error('not asked for')),
    async close() {
      rmSync(root, { recursive: true, force: true });
    },
  };
}

launcherSuite('export', createWorld);

it.each([
  ['raw', 'cont'],
  ['qcow2', 'QFI'],
  ['gcp', '\x1f\x8b'],
])('writes a file that is the image, as %s', async (format, magic) => {
  const world = await createWorld({ format });
  const record = new LaunchRecord();
  const options = await exportLauncher.check(world.options, world.point, world.openImage, 'drill');
  expect(await exportLauncher.run(launchOf(world, record, options))).toBe('done');
  const [path] = Object.values(record.access!);
  expect(readdirSync(join(world.root, 'exports'))).toHaveLength(1);
  if (format === 'raw') expect(readFileSync(path!).equals(image)).toBe(true);
  else expect(readFileSync(path!).toString('latin1').startsWith(magic)).toBe(true);
  await world.close();
});

it('goes on with what an interrupted life has written', async () => {
  const world = await createWorld();
  const record = new LaunchRecord();
  const leave = new AbortController();
  const stop = new AbortController().signal;
  const interrupted: LaunchWorld = {
    ...world,
    openImage: async () => ({
      ...readerOf(image),
      async read(offset, length) {
        leave.abort();
        return new Uint8Array(image.subarray(offset, offset + length));
      },
    }),
  };
  const options = { format: 'raw' };
  const signals = { stop, leave: leave.signal };
  expect(await exportLauncher.run(launchOf(interrupted, record, options, signals))).toBe('left');
  expect(readdirSync(join(world.root, 'exports'))[0]).toMatch(/\.partial$/);
  expect(await exportLauncher.run(launchOf(world, record, options))).toBe('done');
  expect(readFileSync(Object.values(record.access!)[0]!).equals(image)).toBe(true);
  await world.close();
});

it('tells a damaged content, and leaves no file under its name', async () => {
  const world = await createWorld();
  const damaged: LaunchWorld = {
    ...world,
    openImage: async () => ({
      ...readerOf(image),
      read: () => Promise.reject(new Error('damaged')),
    }),
  };
  const record = new LaunchRecord();
  await expect(exportLauncher.run(launchOf(damaged, record, { format: 'raw' }))).rejects.toThrow(
    'damaged',
  );
  expect(record.access).toBe(null);
  await exportLauncher.clean(record.made);
  expect(existsSync(join(world.root, 'exports'))).toBe(false);
  await world.close();
});

it('never ends a process that has come by the number of one of its own', async () => {
  const world = await createWorld();
  const pidfile = join(world.root, 'other.pid');
  writeFileSync(pidfile, `${process.pid}\n`);
  await exportLauncher.clean([{ kind: 'process', name: pidfile }]);
  await world.close();
});
