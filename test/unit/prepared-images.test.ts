/**
 * Preparations of images over the lives of a job: what a killed life has left running is ended first, what
 * is remembered as prepared is on the disk, and the next life finds the very same preparation.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { Launch } from '../../src/recovery/launcher.ts';
import { processOf } from '../../src/recovery/made.ts';
import { preparePaths } from '../../src/recovery/prepare/appliance-vm.ts';
import type { Preparation } from '../../src/recovery/prepare/preparation.ts';
import { prepareImages } from '../../src/recovery/prepare/prepared-images.ts';
import type { VmDisk } from '../../src/recovery/qemu/command.ts';
import { imageServerPaths } from '../../src/recovery/qemu/image-server.ts';
import { fakePoint } from './support/fake-backend.ts';
import { LaunchRecord, type LaunchWorld, launchOf } from './support/launcher-suite.ts';

let root: string;
let record: LaunchRecord;
let launch: Launch;
const steps: string[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'uprep-'));
  record = new LaunchRecord();
  launch = nextLife();
  steps.length = 0;
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(root, { recursive: true, force: true });
});

function nextLife(): Launch {
  const cookieFile = join(root, 'cookie');
  writeFileSync(cookieFile, 'a=b');
  const url = 'http://localhost/image';
  const world = {
    ...{ root, point: fakePoint('p') },
    imageAddress: async () => ({ url, socketPath: join(root, 'none'), cookieFile }),
  } as unknown as LaunchWorld;
  return launchOf(world, record, { prepare: 'auto' });
}

/** Writes into the overlays, as the virtual machine would. */
const preparation = {
  async prepare(_launch: Launch, disks: readonly VmDisk[]) {
    steps.push('prepared');
    for (const { overlayPath } of disks) {
      execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 4096', overlayPath]);
    }
  },
} as unknown as Preparation;

it('what was prepared keeps its name and its bytes in the next life', async () => {
  const [first] = (await prepareImages(preparation)(launch)).values();
  const [next] = (await prepareImages(preparation)(nextLife())).values();
  expect(steps).toEqual(['prepared']);
  expect(next!.id).toBe(first!.id);
  expect(next!.id).not.toContain('undefined');
  expect(await next!.read(0, 512)).toEqual(await first!.read(0, 512));
});

it('what a killed life has left running is ended before its overlays are made anew', async () => {
  const { pidfile } = preparePaths(launch);
  mkdirSync(launch.runFolder);
  const child = spawn('sh', ['-c', 'sleep 60; true', launch.runFolder], { stdio: 'ignore' });
  writeFileSync(pidfile, String(child.pid));
  let isLeft: boolean | null = null;
  const prepare = async (...told: Parameters<Preparation['prepare']>) => {
    isLeft = processOf(pidfile) !== null;
    return preparation.prepare(...told);
  };
  await prepareImages({ prepare } as unknown as Preparation)(launch);
  expect(isLeft).toBe(false);
});

it('what serves an image starts where a killed life has left its socket', async () => {
  mkdirSync(launch.runFolder);
  for (const index of launch.point.volumes.keys()) {
    writeFileSync(imageServerPaths(launch.runFolder, index).socketPath, '');
  }
  await prepareImages(preparation)(launch);
  expect(steps).toEqual(['prepared']);
});

it('what is remembered as prepared is on the disk', async () => {
  const { open } = nodeDisk;
  vi.spyOn(nodeDisk, 'open').mockImplementation(async (path, mode) => {
    const file = await open(path, mode);
    const sync = file.sync.bind(file);
    file.sync = () => {
      steps.push('synced');
      return sync();
    };
    return file;
  });
  const remember = async (notes: Record<string, unknown>) => {
    steps.push(...Object.keys(notes));
  };
  await prepareImages(preparation)({ ...launch, remember });
  expect(steps).toEqual(['prepared', 'synced', 'preparedBy']);
});
