/** The logs of a job, as the service tells them and as a terminal may show them. */
import { stripVTControlCharacters } from 'node:util';
import type { RestClient } from './rest-client.ts';

export const jobPath = (id: string): string => `/v1/jobs/${encodeURIComponent(id)}`;

/** `tail`: so many bytes at its end. ERR_JOB_NOT_FOUND where the job has none of that name. */
export async function readJobLog(
  client: RestClient,
  id: string,
  { of, tail }: { of: string; tail?: number },
): Promise<string> {
  const path = `${jobPath(id)}/log`;
  const { text } = await client.call<{ text: string }>('GET', path, { query: { of, tail } });
  return text;
}

/** A log for a terminal: lines and tabs, and nothing else that it would act on; a guest wrote some of it. */
export const plainLog = (text: string): string =>
  [...stripVTControlCharacters(text).replaceAll('\r\n', '\n')]
    .filter((char) => /[\n\t]/.test(char) || (char >= ' ' && !(char >= '\x7f' && char < '\xa0')))
    .join('')
    .trimEnd();
