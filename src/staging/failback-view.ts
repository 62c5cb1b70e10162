/** A failback as it is told: the register's record, and where the instance stands. Pure. */
import type { ApiFailback, ApiServer } from './api-types.ts';
import type { Failback, Holder } from './lineage-state.ts';

type Shown = Pick<ApiServer, 'volumes' | 'newestPoint' | 'connected' | 'state' | 'lagMs'>;

/** `server`: as the service describes it; null where nothing was received of it. */
export function describeFailback(
  { server: name }: Holder,
  failback: Failback,
  server: Shown | null,
): ApiFailback {
  const { job, original, instance, fromPoint, lastPoint, written } = failback;
  const isWaited = failback.phase === 'replicating' || failback.phase === 'finishing';
  const waits = isWaited ? whyNotReady(failback, server) : '';
  const isReady = failback.phase === 'replicating' && waits === '';
  const volumes = server?.volumes ?? [];
  return {
    ...{ job, server: name, phase: isReady ? 'ready' : failback.phase },
    message: waits === '' ? messages[isReady ? 'ready' : failback.phase] : waits,
    ...{ original, instance, fromPoint, lastPoint },
    newestPoint: server?.newestPoint?.id ?? null,
    connected: server?.connected ?? false,
    state: server?.state ?? 'disconnected',
    lagMs: server?.lagMs ?? null,
    syncedBytes: volumes.reduce((sum, { syncedBytes }) => sum + syncedBytes, 0),
    totalBytes: volumes.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
    written: Object.entries(written).map(([volume, report]) => ({ volume, ...report })),
  };
}

const messages: Readonly<Record<ApiFailback['phase'], string>> = {
  admitting: 'waits until the recovery instance shows itself: its agent has to run',
  replicating: '',
  ready: 'run failback run on the original machine, then failback finish',
  finishing: 'waits for a last cut of the recovery instance',
  fenced: 'the last point has to be written home: failback run on the original machine',
  done: 'the original has the name again; switch the recovery instance off, then start the original',
  cancelled: 'the machine before has the name again',
};

function whyNotReady({ fromPoint, volumes: needed }: Failback, server: Shown | null): string {
  if (server === null || !server.connected) return "waits for the recovery instance's agent";
  const { volumes, newestPoint, state } = server;
  const missing = needed.filter((name) => !volumes.some((v) => v.volume === name));
  if (missing.length > 0) {
    const has = volumes.map(({ volume }) => volume).join(', ');
    return `the instance does not replicate ${missing.join(', ')} (it has ${has}): agent run --volume NAME=DEV`;
  }
  if (state !== 'continuous' && state !== 'backlog') return `the instance's state is ${state}`;
  const isNew = newestPoint !== null && newestPoint.id !== fromPoint;
  return isNew && newestPoint.missingVolumes.length === 0 ? '' : 'waits for its first point';
}
