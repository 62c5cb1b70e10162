/**
 * The quota of puts with a clock that waits for the uploads: time goes on only while each of them has a put that
 * waits for its turn. Who has a turn then follows from the quota alone, however slow the machine is.
 */
import type { Clock, Timer } from '../../../src/base/clock.ts';
import { type Lane, PutQuota, type QuotaOptions } from '../../../src/recovery/ec2/put-quota.ts';

export interface Upload {
  readonly kind: 'launch' | 'background';
  asked: number;
  given: number;
  /** Blocks that were put, or given up. */
  ended: number;
  /** How many turns there had been when it first asked for one. */
  askedAfter: number;
}

/** One timer; it ends once `mayPass` says so, and time is then what it was set to. */
class WaitingClock implements Clock {
  mayPass: () => boolean = () => false;
  private nowMs = 0;
  private due: { readonly atMs: number; readonly run: () => void } | null = null;

  wallMs = (): number => this.nowMs;
  monotonicMs = (): number => this.nowMs;

  after(delayMs: number, run: () => void): Timer {
    const due = { atMs: this.nowMs + delayMs, run };
    this.due = due;
    this.look();
    return {
      cancel: () => {
        if (this.due === due) this.due = null;
      },
    };
  }

  look(): void {
    setImmediate(() => {
      const { due } = this;
      if (due === null || !this.mayPass()) return;
      this.due = null;
      this.nowMs = due.atMs;
      due.run();
    });
  }
}

export class TurnQuota extends PutQuota {
  readonly uploads: Upload[] = [];
  /** Whose turn it was, in order. */
  readonly turns: Upload[] = [];
  private readonly time: WaitingClock;

  /**
   * Waits for so many uploads, and for so many puts of each. `isSerial`: also until each put has its answer; the
   * image must have no blocks of zeros.
   */
  constructor(
    limits: QuotaOptions,
    uploads: number,
    puts: Readonly<Record<Upload['kind'], number>>,
    isSerial = false,
  ) {
    const time = new WaitingClock();
    super(time, limits);
    this.time = time;
    const waits = ({ kind, asked, given, ended }: Upload) =>
      (given >= puts[kind] || asked > given) && (!isSerial || given === ended);
    time.mayPass = () => this.uploads.length >= uploads && this.uploads.every(waits);
  }

  override lane(): Lane {
    return this.watched('launch', super.lane());
  }

  override backgroundLane(): Lane {
    return this.watched('background', super.backgroundLane());
  }

  private watched(kind: Upload['kind'], { take, room }: Lane): Lane {
    const upload: Upload = { kind, asked: 0, given: 0, ended: 0, askedAfter: 0 };
    this.uploads.push(upload);
    return {
      room: async (stop) => {
        const leave = await room(stop);
        return () => {
          upload.ended += 1;
          leave();
          this.time.look();
        };
      },
      take: async (stop) => {
        if (upload.asked === 0) upload.askedAfter = this.turns.length;
        upload.asked += 1;
        const turn = take(stop);
        this.time.look();
        await turn;
        upload.given += 1;
        this.turns.push(upload);
      },
    };
  }
}
