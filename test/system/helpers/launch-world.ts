/** A disk in memory behind the API and the door that launches read through, as one world of a launcher. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { Launcher } from '../../../src/recovery/launcher.ts';
import { createApiHandler } from '../../../src/staging/api/handler.ts';
import { ImageDoor } from '../../../src/staging/jobs/image-door.ts';
import type { ImageReader, ListedPoint } from '../../../src/store/types.ts';
import { fakeBackend, fakePoint, VOLUME } from '../../unit/support/fake-backend.ts';
import type { LaunchWorld } from '../../unit/support/launcher-suite.ts';

const TOKEN = 'a-token';
const POINT = '20261120T103107.123Z-00000002';

/** The service that gives images can be away, as when it is restarted or has no power. */
export interface CuttableWorld extends LaunchWorld {
  cut(): Promise<void>;
  /** Whoever asked meanwhile asks on at the same place. */
  restore(): Promise<void>;
}

export async function launchWorld(
  launcher: Launcher,
  disk: Buffer,
  options: Record<string, unknown>,
): Promise<CuttableWorld> {
  const root = mkdtempSync(join(tmpdir(), 'uvm-'));
  const fake = fakeBackend(disk.subarray(0, 0));
  const openImage = async (): Promise<ImageReader> => ({
    sizeBytes: disk.length,
    etag: 'one',
    read: async (offset, length) => new Uint8Array(disk.subarray(offset, offset + length)),
    nextData: async (offset) => ({ offset, length: disk.length - offset }),
    close: () => undefined,
  });
  const backend = { ...fake, store: { ...fake.store, openImage } };
  const openDoor = (): ImageDoor => {
    const opened = new ImageDoor({
      ...{ runFolder: join(root, 'door'), clock: systemClock, log: silentLog, token: TOKEN },
    });
    opened.serve(createApiHandler(backend, TOKEN));
    return opened;
  };
  let door = openDoor();
  const imageAddress = () => door.address(POINT, VOLUME, join(root, 'door/cookies'));
  const { volumes, ...rest } = fakePoint(POINT);
  const point: ListedPoint = { ...rest, volumes: [{ ...volumes[0]!, sizeBytes: disk.length }] };
  // The door's own folder is not the launch's.
  const launchRoot = mkdtempSync(join(tmpdir(), 'uvm-'));
  return {
    ...{ launcher, root: launchRoot, point, isLasting: true },
    options: { accel: 'tcg', memoryBytes: 256 * 2 ** 20, ...options },
    openImage,
    imageAddress,
    cut: () => door.close(),
    async restore() {
      door = openDoor();
      await imageAddress();
    },
    async close() {
      await door.close();
      for (const folder of [root, launchRoot]) rmSync(folder, { recursive: true, force: true });
    },
  };
}
