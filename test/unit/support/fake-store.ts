/**
 * A store that notes what it is asked and answers as it is told: for tests of sessions, which must not
 * depend on what a store does inside. It keeps positions per volume, so that sessions can resume.
 */
import { UnderstudyError } from '../../../src/base/errors.ts';
import type { RecoveryPoint } from '../../../src/model/replication.ts';
import type {
  CommitOutcome,
  CommitRequest,
  Ingest,
  ListedPoint,
  PointFilter,
  Store,
  VolumeDescription,
  VolumePosition,
} from '../../../src/store/types.ts';

/** A door that can be shut: what goes through waits until it is opened. */
export class Gate {
  private waiting: (() => void)[] = [];
  isShut = false;

  pass(): Promise<void> {
    if (!this.isShut) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push(resolve));
  }
  open(): void {
    this.isShut = false;
    for (const go of this.waiting.splice(0)) go();
  }
}

export class FakeStore {
  readonly calls: string[] = [];
  readonly listed: ListedPoint[] = [];
  readonly durableGate = new Gate();
  readonly offerGate = new Gate();
  readonly commitGate = new Gate();
  /** While set, nothing is sealed. */
  sealFailure: UnderstudyError | null = null;
  /** The next call of this name fails so. */
  readonly failures = new Map<string, UnderstudyError>();
  /** Digests (hex) that are held already. */
  readonly held = new Set<string>();
  missing: Extract<CommitOutcome, { kind: 'missing' }> | null = null;
  private readonly positions = new Map<string, VolumePosition>();
  private readonly busy = new Set<string>();

  /** The part of a store that sessions and servers use. */
  get store(): Store {
    const part: Partial<Store> = {
      beginIngest: (server, volumes) => this.beginIngest(server, volumes),
      servers: async () => [],
      points: async (filter) => this.points(filter),
      seal: async (id) => this.seal(id),
      point: async (id) => this.point(id),
      lastCommitted: async (server) =>
        this.listed.find((each) => each.server === server && each.missingVolumes.length === 0) ??
        null,
      holdPoint: async (id, reason) => this.hold(id, reason),
    };
    return part as Store;
  }

  private seal(id: string): void {
    this.note('seal', id);
    if (this.sealFailure !== null) throw this.sealFailure;
    for (const [i, point] of this.listed.entries()) {
      if (point.id === id) this.listed[i] = { ...point, state: 'sealed' };
    }
  }

  private point(id: string): ListedPoint {
    const found = this.listed.find((point) => point.id === id);
    if (found === undefined) throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`);
    return found;
  }

  private hold(id: string, reason: string): ListedPoint {
    const point = this.point(id);
    if (point.hold !== null) throw new UnderstudyError('ERR_POINT_HELD', 'held already');
    const held = { ...point, hold: { reason, time: point.time } };
    this.listed[this.listed.indexOf(point)] = held;
    return held;
  }

  private points({ server, limit }: PointFilter): ListedPoint[] {
    const own = this.listed.filter((point) => server === undefined || point.server === server);
    return own.sort((a, b) => Date.parse(b.time) - Date.parse(a.time)).slice(0, limit);
  }

  private note(call: string, detail = ''): void {
    this.calls.push(detail === '' ? call : `${call} ${detail}`);
    const failure = this.failures.get(call);
    if (failure === undefined) return;
    this.failures.delete(call);
    throw failure;
  }

  private async beginIngest(
    server: string,
    volumes: readonly VolumeDescription[],
  ): Promise<Ingest> {
    this.note('begin', server);
    if (this.busy.has(server)) throw new UnderstudyError('ERR_INGEST_BUSY', 'busy');
    this.busy.add(server);
    const keys = volumes.map(({ volume }) => `${server} ${volume}`);
    let tail: Promise<unknown> = Promise.resolve();
    const inTurn = <T>(step: () => Promise<T>): Promise<T> => {
      const result = tail.then(step);
      tail = result.catch(() => undefined);
      return result;
    };
    return {
      positions: keys.map((key) => this.positions.get(key) ?? { committed: null, syncedChunks: 0 }),
      offer: (volume, entries) =>
        inTurn(async () => {
          await this.offerGate.pass();
          this.note('offer', String(volume));
          const need = entries.flatMap(({ entry: { whole } }) =>
            whole instanceof Uint8Array ? [this.held.has(hex(whole)) ? 0 : 1] : [],
          );
          return { need: Uint8Array.from(need), changed: need.length };
        }),
      patch: (volume, _entries, pieces) =>
        inTurn(async () => {
          this.note('patch', String(volume));
          for (const piece of pieces) this.held.add(hex(piece.digest));
        }),
      pieces: (pieces) =>
        inTurn(async () => {
          this.note('pieces');
          for (const piece of pieces) this.held.add(hex(piece.digest));
        }),
      durable: async () => {
        await inTurn(async () => undefined);
        await this.durableGate.pass();
        this.note('durable');
      },
      commit: (request) => inTurn(() => this.commit(server, volumes, request)),
      close: () =>
        inTurn(async () => {
          this.note('close');
          this.busy.delete(server);
        }),
    };
  }

  private async commit(
    server: string,
    volumes: readonly VolumeDescription[],
    request: CommitRequest,
  ): Promise<CommitOutcome> {
    await this.commitGate.pass();
    this.note('commit');
    const { missing } = this;
    this.missing = null;
    if (missing !== null) return missing;
    for (const { volume, generation, epoch, contentDigest } of request.volumes) {
      const committed = { generation, epoch, contentDigest };
      this.positions.set(`${server} ${volumes[volume]!.volume}`, { committed, syncedChunks: 0 });
    }
    const point: RecoveryPoint = {
      id: `point-${this.listed.length + 1}`,
      server,
      time: new Date(request.timeMs).toISOString(),
      cut: request.cut,
      volumes: request.volumes.map(({ volume, epoch }) => ({
        ...{ ...volumes[volume]!, epoch, chainRoot: '' },
      })),
      missingVolumes: request.missingVolumes,
    };
    this.listed.unshift({ ...point, state: 'staged', hold: null, copies: [] });
    return { kind: 'committed', point };
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
