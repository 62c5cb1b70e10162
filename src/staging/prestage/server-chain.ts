/** The rolling chain of one server: its record, its turns, the points that it holds, and who has it now. */
import { UnderstudyError } from '../../base/errors.ts';
import type { BorrowedChain } from '../../recovery/ec2/borrowed-chain.ts';
import type { ChainRecord, PrestageSource } from '../../recovery/ec2/prestage.ts';
import { type RecordFile, recordFile } from '../../recovery/ec2/record-file.ts';
import type { ImageReader, ListedPoint } from '../../store/types.ts';
import { errorBody } from '../api-errors.ts';
import type { ApiPrestagedServer } from '../api-types.ts';
import type { PrestagePorts, PrestageSettings } from './ports.ts';
import { afterTurn, freshTurn, stateOf, type TurnEnd, type TurnState } from './prestage-state.ts';

interface Turn {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

/** Of the points that are looked at for a whole one. */
const LOOKED_AT = 50;
const turns = () => import('../../recovery/ec2/prestage-turn.ts');

export class ServerChain {
  readonly server: string;
  private readonly ports: PrestagePorts;
  private readonly settings: PrestageSettings | null;
  private readonly file: RecordFile<ChainRecord>;
  private record: ChainRecord | null;
  private state: TurnState;
  private turn: Turn | null = null;
  /** A turn was asked for while one ran, which may have begun with an older point. */
  private isAsked = false;
  private borrowers = 0;
  /** By point: what holds it against retention. */
  private readonly holds = new Map<string, ImageReader>();
  private progress: ApiPrestagedServer['progress'] = null;
  private last: { readonly endedMs: number; readonly putBlocks: number } | null = null;

  private constructor(
    ports: PrestagePorts,
    settings: PrestageSettings | null,
    server: string,
    file: RecordFile<ChainRecord>,
    record: ChainRecord | null,
  ) {
    this.ports = ports;
    this.settings = settings;
    this.server = server;
    this.file = file;
    this.record = record;
    this.state = freshTurn(ports.clock.monotonicMs());
  }

  /** `holds`: whether the points of its heads are held from now on. ERR_DISK_*. */
  static async open(
    ports: PrestagePorts,
    settings: PrestageSettings | null,
    server: string,
    holds: boolean,
  ): Promise<ServerChain> {
    const path = `${ports.folder}/ec2/${server}.chain`;
    const file = recordFile<ChainRecord>(ports.disk, path, 'ec2-chain');
    const record = await file.load().catch((error: unknown) => unreadable(ports, error));
    const chain = new ServerChain(ports, settings, server, file, record);
    if (holds) await chain.holdHeads().catch((error: unknown) => chain.unheld(error));
    return chain;
  }

  get isRunning(): boolean {
    return this.turn !== null;
  }

  get region(): string | null {
    return this.record?.region ?? null;
  }

  get dueMs(): number {
    return this.state.dueMs ?? Number.POSITIVE_INFINITY;
  }

  isDue(nowMs: number): boolean {
    return this.turn === null && this.borrowers === 0 && this.dueMs <= nowMs;
  }

  /** A turn as soon as may be. */
  ask(): void {
    this.isAsked = this.turn !== null;
    this.state = { ...this.state, dueMs: this.ports.clock.monotonicMs() };
  }

  begin(): void {
    const stop = new AbortController();
    const ended = this.run(stop).finally(() => {
      this.turn = null;
      this.progress = null;
      if (this.isAsked) this.ask();
    });
    this.turn = { stop, ended };
  }

  /** Resolves once no turn runs: what it has put is gone on with by the next one. */
  async interrupt(): Promise<void> {
    this.turn?.stop.abort(new Error('interrupted'));
    await this.turn?.ended;
  }

  async close(): Promise<void> {
    await this.interrupt();
    this.forgetPoints();
  }

  forgetPoints(): void {
    for (const reader of this.holds.values()) reader.close();
    this.holds.clear();
  }

  /** Deletes its snapshots. ERR_AWS_*; ERR_EC2_CHAIN_IN_USE where images use some, or a launch the chain. */
  async end(): Promise<void> {
    if (this.record === null) return;
    const inUse = (what: string) =>
      new UnderstudyError('ERR_EC2_CHAIN_IN_USE', `the chain of ${this.server}: ${what}`);
    if (this.borrowers > 0) throw inUse('a launch is using it');
    const { clock } = this.ports;
    const stop = new AbortController().signal;
    const { endTurn } = await turns();
    const isAll = await endTurn({ clock, journal: this.journal(), stop }, this.region);
    if (!isAll) throw inUse('images use some of its snapshots; the others are deleted');
  }

  /** No turn is made, and nothing of it deleted, until it is given back. */
  async borrow(): Promise<BorrowedChain> {
    this.borrowers += 1;
    const held = await this.interrupt()
      .then(() => this.readersOf())
      .catch((error: unknown) => {
        this.borrowers -= 1;
        throw error;
      });
    let isHeld = true;
    const { store } = this.ports;
    const headOf = (volume: string) =>
      this.record?.volumes.find((each) => each.volume === volume)?.head ?? null;
    return {
      headOf,
      changed: async (volume, point) => {
        const from = headOf(volume)?.point;
        if (from === undefined || !(await this.isThere(from, volume))) return null;
        return () => store.differences(from, point, volume);
      },
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        this.borrowers -= 1;
        for (const reader of held.values()) reader.close();
      },
    };
  }

  shown(isOn: boolean): ApiPrestagedServer {
    const { clock } = this.ports;
    const { state, turn, progress, last } = this;
    const volumes = (this.record?.volumes ?? []).map(({ volume, head }) => ({
      volume,
      snapshotId: head?.snapshotId ?? null,
      point: head?.point ?? null,
      sizeGiB: head?.sizeGiB ?? null,
      encryption: head?.encryption ?? null,
    }));
    const hasHead = volumes.length > 0 && volumes.every(({ snapshotId }) => snapshotId !== null);
    const leftMs = Math.max(0, this.dueMs - clock.monotonicMs());
    return {
      ...{ server: this.server, isOn, reason: state.reason, volumes, progress },
      state: stateOf(state, { isOn, isRunning: turn !== null, hasHead }),
      ...{ endedMs: last?.endedMs ?? null, putBlocks: last?.putBlocks ?? null },
      nextMs: isOn && turn === null ? Math.round(clock.wallMs() + leftMs) : null,
      ...{ error: state.error, failures: state.failures },
    };
  }

  private heldPoints() {
    return (this.record?.volumes ?? []).flatMap(({ volume, head, upload }) =>
      [head, upload].flatMap((each) => (each === null ? [] : [{ volume, point: each.point }])),
    );
  }

  private journal(): RecordFile<ChainRecord> {
    return {
      load: () => this.file.load(),
      save: async (record) => {
        await this.file.save(record);
        this.record = record;
      },
    };
  }

  private async run(stop: AbortController): Promise<void> {
    const { clock, log } = this.ports;
    const { server } = this;
    const startedMs = clock.monotonicMs();
    let end: TurnEnd;
    try {
      end = await this.makeTurn(stop.signal);
    } catch (error) {
      const told = errorBody(error).error;
      end = stop.signal.aborted ? { type: 'interrupted' } : { type: 'failed', error: told };
      if (end.type === 'failed' && this.state.error?.message !== told.message) {
        log.warn('snapshots could not be kept ready', { server, ...told });
      }
    }
    const { everyMs } = this.settings!;
    const at = { startedMs, nowMs: clock.monotonicMs(), everyMs };
    this.state = afterTurn(this.state, end, at, Math.random());
  }

  private async makeTurn(stop: AbortSignal): Promise<TurnEnd> {
    const { clock, log, store, quota, newId } = this.ports;
    const { server } = this;
    const point = (await this.unfinished()) ?? (await this.newestWhole());
    if (point === null) return { type: 'nothing', reason: 'there is no whole point yet' };
    const readers: ImageReader[] = [];
    try {
      const sources: PrestageSource[] = [];
      for (const { volume } of point.volumes) {
        const image = await store.openImage(point.id, volume);
        readers.push(image);
        const changedSince = async (from: string) =>
          (await this.isThere(from, volume))
            ? () => store.differences(from, point.id, volume)
            : null;
        sources.push({ volume, image, changedSince });
      }
      const { prestageTurn } = await turns();
      const done = await prestageTurn({
        ...{ clock, plan: this.settings!.plan, server, point: point.id, sources, quota, stop },
        ...{ job: `chain-${newId()}`, journal: this.journal() },
        onProgress: (volume, doneBytes, totalBytes) => {
          this.progress = { volume, doneBytes, totalBytes };
        },
        onNote: (text) => log.info(text, { server }),
      });
      const putBlocks = done.reduce((sum, volume) => sum + volume.putBlocks, 0);
      this.last = { endedMs: Math.round(clock.wallMs()), putBlocks };
      log.info('snapshots are ready', { server, point: point.id, putBlocks });
      return { type: 'done' };
    } finally {
      // Before the readers of the turn are closed: what was come to is never without a hold.
      await this.holdHeads().catch((error: unknown) => this.unheld(error));
      for (const reader of readers) reader.close();
    }
  }

  /** The point of an upload that was interrupted: what was put for it is of no use for another one. */
  private async unfinished(): Promise<ListedPoint | null> {
    const upload = this.record?.volumes.find((each) => each.upload !== null)?.upload;
    const { error } = this.state;
    // What did not fail by AWS may fail by this point.
    if (upload == null || (error !== null && !error.code.startsWith('ERR_AWS_'))) return null;
    const point = await this.ports.store.point(upload.point).catch(unlessGone);
    return point !== null && isWhole(point) ? point : null;
  }

  private async newestWhole(): Promise<ListedPoint | null> {
    // By the order of commits: the clock of the machine may have been set back.
    const last = await this.ports.store.lastCommitted(this.server);
    if (last === null || isWhole(last)) return last;
    const newest = await this.ports.store.points({ server: this.server, limit: LOOKED_AT });
    return newest.find(isWhole) ?? null;
  }

  private async holdHeads(): Promise<void> {
    const wanted = await this.readersOf();
    this.forgetPoints();
    for (const [point, reader] of wanted) this.holds.set(point, reader);
  }

  /** Staging begins all the same: a chain whose points are gone begins anew. */
  private unheld(error: unknown): void {
    const fields = { server: this.server, reason: String(error) };
    this.ports.log.warn('the points of a chain of snapshots cannot be held', fields);
  }

  /** A reader by point of the heads and of what is under way, of those that are still there. */
  private async readersOf(): Promise<Map<string, ImageReader>> {
    const readers = new Map<string, ImageReader>();
    for (const { volume, point } of this.heldPoints()) {
      if (readers.has(point)) continue;
      try {
        const reader = await this.ports.store.openImage(point, volume).catch(unlessGone);
        if (reader !== null) readers.set(point, reader);
      } catch (error) {
        for (const reader of readers.values()) reader.close();
        throw error;
      }
    }
    return readers;
  }

  private async isThere(id: string, volume: string): Promise<boolean> {
    const point = await this.ports.store.point(id).catch(unlessGone);
    return point?.volumes.some((each) => each.volume === volume) === true;
  }
}

/** Staging begins all the same; the chain's turns tell of it, until the file is taken away. */
function unreadable({ log }: PrestagePorts, error: unknown): null {
  if (!(error instanceof UnderstudyError) || error.code !== 'ERR_EC2_RECORD') throw error;
  log.error(error.message, { code: error.code, ...error.context });
  return null;
}

const isWhole = ({ missingVolumes, isDamaged }: ListedPoint): boolean =>
  missingVolumes.length === 0 && isDamaged !== true;

function unlessGone(error: unknown): null {
  const codes = ['ERR_POINT_NOT_FOUND', 'ERR_VOLUME_NOT_FOUND', 'ERR_OBJECT_MISSING'];
  if (error instanceof UnderstudyError && codes.includes(error.code)) return null;
  throw error;
}
