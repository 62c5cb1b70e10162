/**
 * The image server of one disk, as a process of its own: it outlives staging, and its machine reads on when
 * that is back.
 *
 *   node image-server-process.js FOLDER SPEC
 *
 * FOLDER is the launch's own for sockets (it tells whose process this is), SPEC an ImageServerSpec as JSON. The
 * pidfile is there once the socket takes connections.
 */
import { rm, writeFile } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import type { ImageAddress } from '../launcher.ts';
import { ImageSource } from './image-source.ts';
import { createNbdServer } from './nbd-server.ts';

export interface ImageServerSpec {
  readonly address: ImageAddress;
  readonly sizeBytes: number;
  readonly socketPath: string;
  readonly pidfile: string;
}

const [, spec] = process.argv.slice(2);
const { address, sizeBytes, socketPath, pidfile } = JSON.parse(spec!) as ImageServerSpec;

const source = new ImageSource(address, systemClock, (line) => {
  process.stderr.write(`${new Date(systemClock.wallMs()).toISOString()} ${line}\n`);
});
const server = createNbdServer({
  sizeBytes,
  read: (offset, length, signal) => source.read(offset, length, signal),
});
// Of a life before: whoever starts this has made sure that nothing listens there.
await rm(socketPath, { force: true });
await new Promise<void>((resolve, reject) => {
  server.once('error', reject);
  server.listen(socketPath, resolve);
});
await writeFile(`${pidfile}.new`, String(process.pid), { mode: 0o600 });
await nodeDisk.rename(`${pidfile}.new`, pidfile);
