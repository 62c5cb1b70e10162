/**
 * Where the programs of launches on this machine read images: the REST API on a unix socket that only the
 * service's user reaches, at a path that a restart does not change, with a credential by point in a file.
 * Opened when the first launch asks for it.
 */
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, rmSync } from 'node:fs';
import { rmdir, writeFile } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Clock, Timer } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { diskError, nodeDisk } from '../../base/node-disk.ts';
import type { ImageAddress } from '../../recovery/launcher.ts';
import { COOKIE_NAME, makeImageGrant } from '../image-grant.ts';

const GRANT_MS = 24 * 3_600_000;
const RENEW_MS = 3_600_000;
/** A unix socket's path has at most 107 bytes; the names below the folder take some. */
const MAX_FOLDER_BYTES = 50;

/** The folder of a data directory for sockets: short, the user's own, the same after a restart. */
export function runFolderOf(dataDir: string): string {
  const name = createHash('sha256').update(dataDir).digest('hex').slice(0, 12);
  const isRoot = process.getuid?.() === 0;
  const place = isRoot ? '/run/understudy' : join(tmpdir(), `understudy-${process.getuid?.()}`);
  return join(place, name);
}

function makePrivate(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = lstatSync(folder);
    if (uid === process.getuid?.() && (mode & 0o077) === 0) return;
  } catch (cause) {
    throw diskError(cause, folder);
  }
  throw new UnderstudyError('ERR_DISK_PERMISSION', `${folder} is not this user's alone`);
}

const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** Whoever may rename a folder there could put another one, with sockets of his own, in the place of ours. */
function requireSafeParent(folder: string): void {
  const { uid, mode } = lstatSync(folder);
  const isOurs = uid === 0 || uid === process.getuid?.();
  if (isOurs && ((mode & OTHERS_WRITE) === 0 || (mode & STICKY) !== 0)) return;
  const message = `${folder} can be changed by others than root and this user`;
  throw new UnderstudyError('ERR_DISK_PERMISSION', message);
}

export interface DoorOptions {
  readonly runFolder: string;
  readonly clock: Clock;
  readonly token: string;
  readonly log: Log;
}

export class ImageDoor {
  private readonly options: DoorOptions;
  /** Path of the cookie file -> point. */
  private readonly cookies = new Map<string, string>();
  private opened: Promise<Server> | null = null;
  private timer: Timer | null = null;
  private handler: RequestListener | null = null;

  constructor(options: DoorOptions) {
    this.options = options;
  }

  get folder(): string {
    return this.options.runFolder;
  }

  /** Who answers. Before that, connections are cut: whoever reads asks again. */
  serve(handler: RequestListener): void {
    this.handler = handler;
  }

  /** `folder`: the launch's own; it is made. The cookie there is kept fresh until `forget`. */
  async address(point: string, volume: string, folder: string): Promise<ImageAddress> {
    // What was in the way may be gone when the next launch asks.
    this.opened ??= this.open().catch((error: unknown) => {
      this.opened = null;
      throw error;
    });
    await this.opened;
    makePrivate(folder);
    const cookieFile = join(folder, 'cookie');
    this.cookies.set(cookieFile, point);
    await this.write(cookieFile, point);
    const path = `/v1/points/${encodeURIComponent(point)}/volumes/${encodeURIComponent(volume)}`;
    return { url: `http://localhost${path}/image`, socketPath: this.socketPath, cookieFile };
  }

  forget(folder: string): void {
    this.cookies.delete(join(folder, 'cookie'));
  }

  async close(): Promise<void> {
    this.timer?.cancel();
    if (this.opened === null) return;
    const server = await this.opened;
    server.close();
    server.closeAllConnections();
    rmSync(this.socketPath, { force: true });
    // Stays where launches run on: their sockets lie there.
    await rmdir(this.options.runFolder).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'ENOTEMPTY' && cause.code !== 'ENOENT') {
        throw diskError(cause, this.options.runFolder);
      }
    });
  }

  private get socketPath(): string {
    return join(this.options.runFolder, 'images.sock');
  }

  private async open(): Promise<Server> {
    const { runFolder } = this.options;
    if (Buffer.byteLength(runFolder) > MAX_FOLDER_BYTES) {
      throw new UnderstudyError('ERR_LISTEN', `${runFolder} is too long for sockets`);
    }
    makePrivate(runFolder);
    requireSafeParent(dirname(runFolder));
    // The data directory's lock was taken before: nobody else listens here.
    rmSync(this.socketPath, { force: true });
    const server = createServer((request, response) => this.answer(request, response));
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        const message = `cannot listen at ${this.socketPath}: ${cause.code}`;
        reject(new UnderstudyError('ERR_LISTEN', message, {}, cause));
      });
      server.listen(this.socketPath, resolve);
    });
    this.renewLater();
    return server;
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    if (this.handler === null) request.destroy();
    else this.handler(request, response);
  }

  private renewLater(): void {
    this.timer = this.options.clock.after(RENEW_MS, () => {
      for (const [path, point] of this.cookies) {
        this.write(path, point).catch((error: Error) => {
          this.options.log.warn('a credential could not be renewed', { reason: error.message });
        });
      }
      this.renewLater();
    });
  }

  /** Whoever reads it sees the old one or the new one. */
  private async write(path: string, point: string): Promise<void> {
    const { token, clock } = this.options;
    const grant = makeImageGrant(token, point, clock.wallMs() + GRANT_MS);
    try {
      await writeFile(`${path}.new`, `${COOKIE_NAME}=${grant}`, { mode: 0o600 });
    } catch (cause) {
      throw diskError(cause, path);
    }
    await nodeDisk.rename(`${path}.new`, path);
  }
}
