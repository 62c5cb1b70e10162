/** Routes of the rolling chains of EBS snapshots: where each is, a switch for each, a turn now. */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiPrestagedServer } from '../api-types.ts';
import type { Call, Route } from './route.ts';

async function change({ backend, path, body }: Call): Promise<ApiPrestagedServer> {
  const { isOn, endsChain = false } = body;
  const isRight = typeof isOn === 'boolean' && typeof endsChain === 'boolean';
  if (!isRight || (isOn && endsChain)) {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {isOn}, and endsChain only with false');
  }
  return backend.prestage.switch(path.server!, isOn, endsChain);
}

export const prestageRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/ec2/prestage',
    summary: 'The EBS snapshots that staging keeps ready, by server.',
    responseSchema: 'Prestage',
    status: 200,
    handle: async ({ backend }) => backend.prestage.list(),
  },
  {
    method: 'POST',
    path: '/v1/ec2/prestage/{server}',
    summary: 'Switches the snapshots of a server on or off; off, it can delete them.',
    requestSchema: 'PrestageSwitch',
    responseSchema: 'PrestagedServer',
    status: 200,
    handle: change,
  },
  {
    method: 'POST',
    path: '/v1/ec2/prestage/{server}/run',
    summary: 'Brings the snapshots of a server up to its newest point now.',
    responseSchema: 'PrestagedServer',
    status: 202,
    handle: async ({ backend, path }) => backend.prestage.run(path.server!),
  },
];
