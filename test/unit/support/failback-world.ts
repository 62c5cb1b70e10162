/** A service that has a failback and points of two volumes, in this process, and disks as files. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { CHUNK_BYTES, chunkCount } from '../../../src/model/geometry.ts';
import { createApiHandler } from '../../../src/staging/api/handler.ts';
import type { ApiFailback, ApiFailbackPreview } from '../../../src/staging/api-types.ts';
import type { ListedPoint } from '../../../src/store/types.ts';
import { Random } from '../../simulation/random.ts';
import { fakeBackend, fakeFailback, fakeJob, fakePoint, fakePreview } from './fake-backend.ts';

export const JOB = 'j1';
export const SIZES = { root: 5 * CHUNK_BYTES + 512, data: 3 * CHUNK_BYTES };
type Name = keyof typeof SIZES;
export const names = Object.keys(SIZES) as Name[];
export type Images = Readonly<Record<Name, Buffer>>;

let folder = '';
let server: Server | null = null;

/** A folder for each test, and the end of its service. */
export function useFailbackWorld(): { readonly folder: string } {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'understudy-failback-'));
    writeFileSync(join(folder, 'token'), 'secret\n');
  });
  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
    rmSync(folder, { recursive: true });
  });
  return {
    get folder() {
      return folder;
    },
  };
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
const chunkOf = (bytes: Buffer, chunk: number) =>
  bytes.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);

/** Points of two volumes, and a failback whose state a test moves on. */
export class World {
  readonly random = new Random(7);
  readonly points = new Map<string, Images>();
  readonly told: { volume: string; point: string }[] = [];
  readonly asked: string[] = [];
  state: ApiFailback = { ...fakeFailback(JOB), phase: 'ready', lastPoint: null, written: [] };
  /** What was committed last has the earliest time. */
  isClockBehind = false;
  isInstanceNew = false;
  /** So many of the next requests are cut off. */
  broken = 0;
  onAsk: (url: string) => unknown = () => undefined;
  environment: Record<string, string> = {};

  add(id: string, images: Images): void {
    this.points.set(id, images);
    this.state = { ...this.state, newestPoint: id };
  }

  listed(id: string): ListedPoint {
    const volumes = names.map((volume) => ({
      ...{ volume, sizeBytes: SIZES[volume], sectorBytes: 512, generation: 'a', epoch: 1 },
      chainRoot: '',
    }));
    return { ...fakePoint(id), volumes };
  }

  image(id: string, volume: string): Buffer {
    const found = this.points.get(id)?.[volume as Name];
    if (found === undefined) throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`);
    return found;
  }

  async listen(): Promise<void> {
    const base = fakeBackend(Buffer.alloc(1));
    const written = async (_job: string, report: { volume: string; point: string }) => {
      this.told.push({ volume: report.volume, point: report.point });
      const isLast = this.told.filter(({ point }) => point === this.state.lastPoint).length === 2;
      if (isLast) this.state = { ...this.state, phase: 'done', message: 'home' };
      return this.state;
    };
    const finish = async () => {
      this.fence();
      return this.state;
    };
    const handler = createApiHandler(
      {
        ...base,
        store: {
          ...base.store,
          point: async (id) => this.listed(id),
          lastCommitted: async () => this.listed([...this.points.keys()].at(-1)!),
          points: async () => {
            const ids = [...this.points.keys()];
            return (this.isClockBehind ? ids : ids.reverse()).map((id) => this.listed(id));
          },
          openImage: async (id, volume) => this.reader(id, volume),
          compareChunks: async (id, volume, first, digests) =>
            this.compare(this.image(id, volume), first, digests),
          differences: (from, to, volume) => this.differences(from, to, volume),
        },
        jobs: { ...base.jobs, find: (id) => fakeJob({ id, kind: 'failback' }) },
        failbacks: {
          ...{ list: () => [this.state], find: () => this.state, finish, written },
          preview: async (name) => this.preview(name),
        },
      },
      'secret',
    );
    const listening = createServer(async (request, response) => {
      this.asked.push(`${request.method} ${request.url}`);
      await this.onAsk(request.url ?? '');
      if (this.broken > 0) {
        this.broken -= 1;
        request.destroy();
      } else handler(request, response);
    });
    server = listening;
    await new Promise<void>((done) => listening.listen(0, '127.0.0.1', done));
    const { port } = listening.address() as AddressInfo;
    this.environment = {
      UNDERSTUDY_STAGING: `http://127.0.0.1:${port}`,
      UNDERSTUDY_TOKEN_FILE: join(folder, 'token'),
    };
  }

  private preview(name: string): ApiFailbackPreview {
    if (name !== 'web1') throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${name}"`);
    const isNew = { instance: null, lastSeen: null };
    return { ...fakePreview(name), ...(this.isInstanceNew && isNew) };
  }

  /** The instance makes its last point, and is shut out. */
  fence(): void {
    this.add('p3', this.changed(this.points.get(this.state.newestPoint!)!, 1));
    this.state = { ...this.state, phase: 'fenced', lastPoint: 'p3' };
  }

  images(): Images {
    const random = (name: Name) => Buffer.from(this.random.bytes(SIZES[name]));
    return { root: random('root'), data: random('data') };
  }

  /** With one chunk of each volume otherwise. */
  changed(images: Images, chunk: number): Images {
    const other = (name: Name) => {
      const bytes = Buffer.from(images[name]);
      bytes[chunk * CHUNK_BYTES]! ^= 1;
      return bytes;
    };
    return { root: other('root'), data: other('data') };
  }

  private async reader(id: string, volume: string) {
    const image = this.image(id, volume);
    return {
      ...{ sizeBytes: image.length, etag: id, close: () => undefined, nextData: async () => null },
      read: async (offset: number, length: number) =>
        new Uint8Array(image.subarray(offset, offset + length)),
    };
  }

  private compare(image: Buffer, first: number, digests: Uint8Array) {
    const different = new Uint8Array(2);
    let count = 0;
    for (let i = 0; i < digests.length / 32; i += 1) {
      const own = sha256(chunkOf(image, first + i));
      if (own.equals(digests.subarray(32 * i, 32 * i + 32))) continue;
      different[i >> 3]! |= 1 << (i & 7);
      count += 1;
    }
    return { different, zero: new Uint8Array(2), count };
  }

  private async *differences(from: string, to: string, volume: string) {
    const after = this.image(to, volume);
    // As the store tells it: behind the end of an image there are zeros.
    const before = Buffer.alloc(after.length);
    this.image(from, volume).copy(before);
    for (let chunk = 0; chunk < chunkCount(after.length); chunk += 1) {
      const length = chunkOf(after, chunk).length;
      const isSame = chunkOf(before, chunk).equals(chunkOf(after, chunk));
      if (!isSame) yield { offset: chunk * CHUNK_BYTES, length };
    }
  }
}

export const target = (name: string) => join(folder, `${name}.disk`);

/** Disks that hold what the original had, and a point that differs from it in one chunk of each. */
export async function world(): Promise<{ now: World; old: Images }> {
  const now = new World();
  await now.listen();
  const old = now.images();
  for (const name of names) writeFileSync(target(name), old[name]);
  now.add('p2', now.changed(old, 0));
  return { now, old };
}
