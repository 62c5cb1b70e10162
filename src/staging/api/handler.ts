/**
 * The REST API over node:http: authorisation, routing, JSON in and out, errors by their codes. A request
 * listener and nothing more: who listens, and the upgrade to WebSocket, are the service's.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { UnderstudyError } from '../../base/errors.ts';
import { asUnderstudyError, errorBody, statusOf } from '../api-errors.ts';
import { grantedPoint, isAuthorized, presentedToken } from './auth.ts';
import type { ApiBackend } from './backend.ts';
import { CheckJobs, checkRoutes } from './checks.ts';
import { compareRoutes } from './compare.ts';
import { copyRoutes } from './copies.ts';
import { differenceRoutes } from './differences.ts';
import { failbackRoutes } from './failbacks.ts';
import { failoverRoutes } from './failovers.ts';
import { imageRoutes } from './images.ts';
import { jobRoutes } from './jobs.ts';
import { openApiDocument } from './openapi.ts';
import { planRoutes } from './plans.ts';
import { pointRoutes } from './points.ts';
import { prestageRoutes } from './prestage.ts';
import { retentionRoutes } from './retention.ts';
import { matchPath, type Route } from './route.ts';
import { serverCheckRoutes } from './server-checks.ts';
import { serverRoutes } from './servers.ts';

const MAX_BODY_BYTES = 2 ** 20;

export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** All routes but the OpenAPI document itself. */
export const createRoutes = (): readonly Route[] => [
  ...serverRoutes,
  ...pointRoutes,
  ...retentionRoutes,
  ...copyRoutes,
  ...imageRoutes,
  ...compareRoutes,
  ...differenceRoutes,
  ...checkRoutes(new CheckJobs()),
  ...jobRoutes,
  ...prestageRoutes,
  ...failbackRoutes,
  ...failoverRoutes,
  ...planRoutes,
  ...serverCheckRoutes,
];

export function createApiHandler(backend: ApiBackend, token: string): RequestHandler {
  const routes = createRoutes();
  const document = JSON.stringify(openApiDocument(routes, backend.stagingVersion), null, 2);
  return (request, response) => {
    answer(request, response, { backend, token, routes, document }).catch((error) => {
      fail(request, response, asUnderstudyError(error), backend);
    });
  };
}

interface Service {
  readonly backend: ApiBackend;
  readonly token: string;
  readonly routes: readonly Route[];
  readonly document: string;
}

async function answer(request: IncomingMessage, response: ServerResponse, service: Service) {
  const url = new URL(request.url ?? '/', 'http://staging');
  authorize(request, url.pathname, service);
  if (url.pathname === '/v1/openapi.json') {
    sendText(request, response, 200, service.document);
    return;
  }
  const { route, path } = findRoute(service.routes, request.method ?? 'GET', url.pathname);
  const body = request.method === 'POST' ? await readBody(request) : {};
  const { backend } = service;
  const result = await route.handle({
    backend,
    request,
    response,
    path,
    body,
    query: url.searchParams,
  });
  if (result !== undefined) sendText(request, response, route.status, JSON.stringify(result));
}

/** The token opens everything; a credential for a point opens its images. ERR_UNAUTHORIZED. */
function authorize(request: IncomingMessage, pathname: string, { backend, token }: Service): void {
  const { headers, method } = request;
  if (isAuthorized(headers, token)) return;
  const point = grantedPoint(headers, token, backend.clock.wallMs());
  const isRead = method === 'GET' || method === 'HEAD';
  const isIts = () => imageRoutes.some((route) => matchPath(route, pathname)?.point === point);
  if (point !== null && isRead && isIts()) return;
  const isAgent = backend.agentTokens.serverOf(presentedToken(headers) ?? '') !== null;
  const message = isAgent ? 'the token is one of an agent' : 'a valid token is needed';
  throw new UnderstudyError('ERR_UNAUTHORIZED', message);
}

function findRoute(routes: readonly Route[], method: string, pathname: string) {
  const asked = method === 'HEAD' ? 'GET' : method;
  let isKnown = false;
  for (const route of routes) {
    const path = matchPath(route, pathname);
    if (path === null) continue;
    if (route.method === asked) return { route, path };
    isKnown = true;
  }
  if (isKnown) throw new UnderstudyError('ERR_API_METHOD', `no ${method} of ${pathname}`);
  throw new UnderstudyError('ERR_API_NOT_FOUND', `nothing at ${pathname}`);
}

async function readBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_BODY_BYTES)
      throw new UnderstudyError('ERR_API_REQUEST', 'the body is too long');
    parts.push(part);
  }
  if (length === 0) return {};
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch (cause) {
    throw new UnderstudyError('ERR_API_REQUEST', 'the body is not JSON', {}, cause);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new UnderstudyError('ERR_API_REQUEST', 'the body must be a JSON object');
}

function sendText(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  text: string,
) {
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  });
  response.end(request.method === 'HEAD' ? undefined : text);
}

function fail(
  request: IncomingMessage,
  response: ServerResponse,
  error: UnderstudyError,
  { log }: ApiBackend,
) {
  const { kind } = error.spec;
  if (kind === 'bug' || kind === 'corruption') {
    const cause = error.cause instanceof Error ? error.cause.stack : undefined;
    log.error(error.message, { code: error.code, ...error.context, url: request.url, cause });
  }
  // The client sees a short body, which is no image: never a wrong byte.
  if (response.headersSent) {
    response.destroy();
    return;
  }
  for (const name of response.getHeaderNames()) response.removeHeader(name);
  if (error.code === 'ERR_UNAUTHORIZED') {
    response.setHeader('www-authenticate', 'Basic realm="understudy", Bearer');
  }
  sendText(request, response, statusOf(error), JSON.stringify(errorBody(error)));
}
