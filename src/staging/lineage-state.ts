/**
 * Who may be a server: one machine at a time, and which one after which. A drill's clone has the server's
 * name, key and disks and must not write over its history; a failback hands the name to the recovery
 * instance, shuts it out after its last point, and gives the name home. Pure; what is returned is made
 * durable by the register, one write for each step, so that a crash leaves the step done or not begun.
 *
 *   failback   admitting -> replicating -> finishing -> fenced -> done
 *                  |             |             |           |
 *                  +-------------+-------------+-----------+--> cancelled (the former holder has it again)
 */
import { UnderstudyError } from '../base/errors.ts';
import type { ServerId } from '../model/replication.ts';

/** A machine that had the name once. */
export interface FormerHolder {
  readonly hardwareId: string;
  /** ISO 8601; empty where an older version did not note it. */
  readonly since: string;
  readonly until: string;
  /** The newest whole point when it lost the name; null: there was none. */
  readonly lastPoint: string | null;
}

export const failbackPhases = [
  ...(['admitting', 'replicating', 'finishing', 'fenced', 'done', 'cancelled'] as const),
];
export type FailbackPhase = (typeof failbackPhases)[number];

/** What was written on the original machine, of one volume. */
export interface WrittenHome {
  readonly point: string;
  readonly time: string;
  /** Of the last run: chunks compared, found different, and bytes written; all were read back. */
  readonly chunks: number;
  readonly different: number;
  readonly writtenBytes: number;
}

export interface Failback {
  readonly job: string;
  readonly phase: FailbackPhase;
  /** Who had the name when it began, and gets it back. */
  readonly original: string;
  /** The recovery instance; empty while it has not shown itself. */
  readonly instance: string;
  /** Words by which the instance will be known where its hardware id is not: a firmware's UUID. */
  readonly expected: readonly string[];
  /** The last point of the original, held, and its volumes: what the instance has to replicate. */
  readonly fromPoint: string | null;
  readonly volumes: readonly string[];
  /** The last point of the instance; null before the fence. */
  readonly lastPoint: string | null;
  /** Asked to finish without a last cut where the instance's agent is gone. */
  readonly acceptsNewest?: boolean;
  /** By volume. */
  readonly written: Readonly<Record<string, WrittenHome>>;
  /** Words of the machines that wrote: one of them may have another hardware id, and is let in. */
  readonly home: readonly string[];
}

export interface Holder {
  readonly server: ServerId;
  /** The machine that has the name. */
  readonly hardwareId: string;
  /** The other machine that was refused last; null: none waits. */
  readonly pendingHardwareId: string | null;
  // What follows is absent where an older version wrote it.
  /** Since when, ISO 8601. */
  readonly since?: string;
  /** The newest whole point when it took the name. */
  readonly fromPoint?: string | null;
  /** Oldest first. */
  readonly former?: readonly FormerHolder[];
  /** The newest failback, also one that is over. */
  readonly failback?: Failback;
}

/** A machine as it shows itself. */
export interface Machine {
  readonly hardwareId: string;
  /** What it says of itself in clear (machine words): not proof of anything. */
  readonly words: readonly string[];
}

export type Admission =
  /** The name is free, or this machine holds it. `holder` is set where that is news. */
  | { readonly kind: 'admitted'; readonly holder: Holder | null }
  /** Another machine holds it; an operator may let this one take it over. */
  | { readonly kind: 'refused'; readonly holder: Holder; readonly why: string };

/** So many former holders are remembered. */
const MAX_FORMER = 50;

export const isActive = ({ failback }: Holder): boolean =>
  failback !== undefined && failback.phase !== 'done' && failback.phase !== 'cancelled';

const shares = (a: readonly string[], b: readonly string[]): boolean =>
  a.some((word) => b.includes(word));

/** `now`: ISO 8601. `newestPoint`: the newest whole one of the server. */
export interface Moment {
  readonly now: string;
  readonly newestPoint: string | null;
}

export function admit(
  known: Holder | undefined,
  server: ServerId,
  { hardwareId, words }: Machine,
  moment: Moment,
): Admission {
  if (known === undefined) {
    const { now: since, newestPoint: fromPoint } = moment;
    const holder = { server, hardwareId, pendingHardwareId: null, since, fromPoint };
    return { kind: 'admitted', holder };
  }
  const { failback } = known;
  if (failback?.phase === 'fenced') {
    const whose =
      hardwareId === failback.instance ? 'this machine is switched over' : 'it is fenced';
    const why = `${whose}: point ${failback.lastPoint} of ${server} is being written home`;
    return refused(known, hardwareId, why);
  }
  if (known.hardwareId === hardwareId) return { kind: 'admitted', holder: null };
  const isHome =
    failback?.phase === 'done' &&
    failback.instance !== hardwareId &&
    known.hardwareId === failback.original &&
    shares(words, failback.home);
  if (isHome) return { kind: 'admitted', holder: take(known, hardwareId, moment) };
  const isOver = failback?.phase === 'done' && failback.instance === hardwareId;
  const why = isOver
    ? `${server} has been failed back to its own machine; this recovery instance can be switched off`
    : `${server} is another machine`;
  return refused(known, hardwareId, why);
}

const refused = (known: Holder, hardwareId: string, why: string): Admission => ({
  kind: 'refused',
  holder: hardwareId === known.hardwareId ? known : { ...known, pendingHardwareId: hardwareId },
  why,
});

/** Another machine has the name from now on. */
function take(known: Holder, hardwareId: string, { now, newestPoint }: Moment): Holder {
  if (known.hardwareId === hardwareId) return { ...known, pendingHardwareId: null };
  const { since = '', former = [] } = known;
  const last = { hardwareId: known.hardwareId, since, until: now, lastPoint: newestPoint };
  return {
    ...known,
    ...{ hardwareId, pendingHardwareId: null, since: now, fromPoint: newestPoint },
    former: [...former, last].slice(-MAX_FORMER),
  };
}

/** The machine that waits takes the name over; null where it is not one of those that wait. */
export function admitPending(
  known: Holder,
  hardwareId: string,
  waiting: readonly string[],
  moment: Moment,
): Holder | null {
  const isWaiting = hardwareId === known.pendingHardwareId || waiting.includes(hardwareId);
  if (hardwareId === '' || !isWaiting) return null;
  if (isActive(known)) {
    const { job } = known.failback!;
    throw wrong(`failback ${job} of ${known.server} is under way: finish or cancel it first`);
  }
  return take(known, hardwareId, moment);
}

const wrong = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_FAILBACK_STATE', message);

/** The failback of `job`, in one of `phases`. ERR_FAILBACK_STATE. */
function inPhase(known: Holder, job: string, phases: readonly FailbackPhase[]): Failback {
  const { failback, server } = known;
  if (failback?.job !== job) throw wrong(`${job} is not the failback of ${server}`);
  if (phases.includes(failback.phase)) return failback;
  throw wrong(`failback ${job} is ${failback.phase}, not ${phases.join(' or ')}`);
}

const moved = (known: Holder, changes: Partial<Failback>): Holder => ({
  ...known,
  failback: { ...known.failback!, ...changes },
});

/** ERR_FAILBACK_STATE where one is under way. Begun again by the same job, it is as it was. */
export function beginFailback(known: Holder, job: string, expected: readonly string[]): Holder {
  if (known.failback?.job === job) return known;
  if (isActive(known)) {
    throw wrong(`failback ${known.failback!.job} of ${known.server} is under way`);
  }
  const failback: Failback = {
    ...{ job, phase: 'admitting', original: known.hardwareId, instance: '', expected },
    ...{ fromPoint: null, volumes: [], lastPoint: null, written: {}, home: [] },
  };
  return { ...known, failback };
}

/** The recovery instance is the server from now on; `newestPoint` is the last of the former holder. */
export function admitInstance(
  known: Holder,
  job: string,
  { hardwareId, volumes }: { hardwareId: string; volumes: readonly string[] },
  moment: Moment,
): Holder {
  inPhase(known, job, ['admitting']);
  if (hardwareId === known.hardwareId) {
    throw wrong(`${hardwareId} is the machine that has the name ${known.server} already`);
  }
  const changes = { phase: 'replicating', instance: hardwareId, volumes } as const;
  return moved(take(known, hardwareId, moment), { ...changes, fromPoint: moment.newestPoint });
}

export function askToFinish(known: Holder, job: string, acceptsNewest = false): Holder {
  const failback = inPhase(known, job, ['replicating', 'finishing', 'fenced']);
  const isAsked = failback.phase !== 'replicating' && failback.acceptsNewest === acceptsNewest;
  if (isAsked || failback.phase === 'fenced') return known;
  return moved(known, { phase: 'finishing', acceptsNewest });
}

/** Nothing that the instance sends counts any more; `lastPoint` is what goes home. */
export function fence(known: Holder, job: string, lastPoint: string): Holder {
  inPhase(known, job, ['finishing']);
  return moved(known, { phase: 'fenced', lastPoint });
}

/**
 * A volume was written on the original machine (`words`), and read back. Once all `volumes` of the last
 * point are, the original has the name again.
 */
export function noteWritten(
  known: Holder,
  job: string,
  { volume, report, words }: { volume: string; report: WrittenHome; words: readonly string[] },
  volumes: readonly string[],
  moment: Moment,
): Holder {
  const failback = inPhase(known, job, ['replicating', 'finishing', 'fenced', 'done']);
  if (failback.phase === 'done') return known;
  const written = { ...failback.written, [volume]: report };
  const home = [...new Set([...failback.home, ...words])];
  const next = moved(known, { written, home });
  const isWhole =
    failback.phase === 'fenced' &&
    volumes.every((name) => written[name]?.point === failback.lastPoint);
  return isWhole ? moved(take(next, failback.original, moment), { phase: 'done' }) : next;
}

/** The former holder has the name again. A failback that is over stays as it is. */
export function cancelFailback(known: Holder, job: string, moment: Moment): Holder {
  if (known.failback?.job !== job || !isActive(known)) return known;
  const { instance, original } = known.failback;
  const holder = instance === '' ? known : take(known, original, moment);
  return moved(holder, { phase: 'cancelled' });
}
