/**
 * Whose a machine is that was refused: the drill or failover whose `access` names one of its words (the
 * firmware's UUID that was given to it, the id of its instance). Pure.
 */
import type { ApiServer } from './api-types.ts';
import type { ShownJob } from './jobs/jobs.ts';

type Known = Pick<ShownJob, 'id' | 'access'>;

export const withJobs =
  (jobs: readonly Known[]) =>
  <Server extends Pick<ApiServer, 'refused'>>(server: Server): Server => {
    const refused = server.refused.map((machine) => {
      const isIts = (value: string) => machine.words.includes(value.toLowerCase());
      const job = jobs.find(({ access }) => Object.values(access ?? {}).some(isIts));
      return { ...machine, job: job?.id ?? null };
    });
    return { ...server, refused };
  };
