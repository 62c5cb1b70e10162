/** Routes of source servers, and of the service itself. */
import { UnderstudyError } from '../../base/errors.ts';
import type {
  ApiAgentRevoked,
  ApiAgentToken,
  ApiMachineReport,
  ApiServer,
  ApiStatistics,
  ApiUncleaned,
} from '../api-types.ts';
import { summaryOf } from '../machines.ts';
import type { ApiBackend } from './backend.ts';
import { stateOf } from './retention.ts';
import type { Route } from './route.ts';

async function find(backend: ApiBackend, name: string): Promise<ApiServer> {
  const server = (await backend.servers()).find((candidate) => candidate.server === name);
  if (server !== undefined) return server;
  throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${name}"`);
}

async function admit(backend: ApiBackend, name: string, hardwareId: unknown): Promise<ApiServer> {
  if (typeof hardwareId !== 'string') {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {hardwareId}');
  }
  await backend.admit(name, hardwareId);
  return find(backend, name);
}

function machine(backend: ApiBackend, name: string): ApiMachineReport {
  const report = backend.machine(name);
  const summary = summaryOf(report);
  if (report !== null && summary !== null) return { ...summary, findings: report.findings };
  const message = `the agent of ${name} has not told of its machine yet`;
  throw new UnderstudyError('ERR_MACHINE_UNKNOWN', message, { server: name });
}

async function statistics(backend: ApiBackend, by: string | null): Promise<ApiStatistics> {
  if (by !== null && by !== 'server' && by !== 'point') {
    throw new UnderstudyError('ERR_API_REQUEST', 'by must be server or point');
  }
  return {
    ...(await backend.store.statistics()),
    receivedBytes: backend.receivedBytes(),
    usage: by === null ? null : await backend.store.usage(by),
  };
}

const uncleaned = ({ jobs }: ApiBackend): ApiUncleaned[] =>
  jobs.uncleaned().map(({ id, kind, server, target, cleanError, cleanTries, cleanAgainAt }) => ({
    ...{ job: id, kind, server, target, error: cleanError! },
    ...{ tries: cleanTries, againAt: cleanAgainAt },
  }));

function agentToken({ agentTokens }: ApiBackend, server: string): ApiAgentToken {
  return { server, token: agentTokens.tokenOf(server) };
}

async function revoke({ agentTokens }: ApiBackend, server: string): Promise<ApiAgentRevoked> {
  await agentTokens.revoke(server);
  return { server };
}

export const serverRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/servers',
    summary: 'All source servers and their replication states.',
    responseSchema: 'Servers',
    status: 200,
    handle: async ({ backend }) => ({ servers: await backend.servers() }),
  },
  {
    method: 'GET',
    path: '/v1/servers/{server}',
    summary: 'One source server.',
    responseSchema: 'Server',
    status: 200,
    handle: ({ backend, path }) => find(backend, path.server!),
  },
  {
    method: 'GET',
    path: '/v1/servers/{server}/machine',
    summary: 'What a source server is, and whether it will boot elsewhere, as its agent told last.',
    responseSchema: 'MachineReport',
    status: 200,
    handle: async ({ backend, path }) => machine(backend, path.server!),
  },
  {
    method: 'POST',
    path: '/v1/servers/{server}/admit',
    summary: 'Admits other hardware, refused so far, as this server.',
    requestSchema: 'Admission',
    responseSchema: 'Server',
    status: 200,
    handle: ({ backend, path, body }) => admit(backend, path.server!, body.hardwareId),
  },
  {
    method: 'POST',
    path: '/v1/servers/{server}/token',
    summary:
      'The token by which an agent sends as this server, and nothing else; the same until it is revoked.',
    responseSchema: 'AgentToken',
    status: 200,
    handle: async ({ backend, path }) => agentToken(backend, path.server!),
  },
  {
    method: 'POST',
    path: '/v1/servers/{server}/revoke',
    summary: 'Makes void all tokens of agents that were made for this server.',
    responseSchema: 'AgentRevoked',
    status: 200,
    handle: ({ backend, path }) => revoke(backend, path.server!),
  },
  {
    method: 'GET',
    path: '/v1/statistics',
    summary: 'What the repository holds; with `by`, what each server or point takes.',
    query: [
      {
        name: 'by',
        description: 'Reads all maps of the repository',
        schema: { type: 'string', enum: ['server', 'point'] },
      },
    ],
    responseSchema: 'Statistics',
    status: 200,
    handle: ({ backend, query }) => statistics(backend, query.get('by')),
  },
  {
    method: 'GET',
    path: '/v1/status',
    summary:
      'That the service runs, where its repository is, whether retention waits, what jobs have left behind.',
    responseSchema: 'Status',
    status: 200,
    handle: async ({ backend }) => ({
      version: backend.stagingVersion,
      state: 'running',
      repository: backend.repository,
      durability: backend.durability,
      retention: stateOf(backend),
      uncleaned: uncleaned(backend),
    }),
  },
];
