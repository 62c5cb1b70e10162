/** Servers that something is asked of by name. Lists take names as filters, and are empty for one that is not there. */
import { UnderstudyError } from '../../base/errors.ts';
import type { ServerId } from '../../model/replication.ts';
import type { ApiBackend } from './backend.ts';

/** ERR_SERVER_NOT_FOUND. */
export async function assertServer(
  backend: Pick<ApiBackend, 'servers'>,
  server: ServerId,
): Promise<void> {
  if ((await backend.servers()).some((known) => known.server === server)) return;
  throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
}
