/**
 * The bytes of a point for QEMU: a process of its own reads them by ranges from staging's image URL and hands
 * them on through a unix socket (image-server-process.ts). It asks again while staging is away, so the guest only
 * waits; a place that is damaged gives the guest an error at once. The credential is a cookie for this point
 * alone, read from its file each time: it is in no command line.
 */
import { extname, join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { ImageAddress } from '../launcher.ts';
import type { ImageServerSpec } from './image-server-process.ts';
import { startProgram } from './programs.ts';

const PROCESS = join(import.meta.dirname, `image-server-process${extname(import.meta.filename)}`);

export const imageServerPaths = (runFolder: string, index: number) => ({
  pidfile: join(runFolder, `disk${index}.pid`),
  socketPath: join(runFolder, `disk${index}.sock`),
});

/** `sizeBytes`: of the image. Resolves when the socket takes connections. ERR_LAUNCH_FAILED. */
export async function startImageServer(
  address: ImageAddress,
  where: {
    runFolder: string;
    index: number;
    sizeBytes: number;
    logPath: string;
    clock: Clock;
    isLow: boolean;
  },
): Promise<void> {
  const { runFolder, index, sizeBytes, logPath, clock, isLow } = where;
  const paths = imageServerPaths(runFolder, index);
  const spec: ImageServerSpec = { address, sizeBytes, ...paths };
  await startProgram({
    name: process.execPath,
    words: [PROCESS, runFolder, JSON.stringify(spec)],
    pidfile: paths.pidfile,
    ...{ logPath, clock, isLow },
  });
}
