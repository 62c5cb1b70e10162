/**
 * A route of the REST API as data: what it matches, what it takes, what it answers, and how it is
 * documented. The OpenAPI document is made of the same table, so the two cannot differ.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { UnderstudyError } from '../../base/errors.ts';
import { parseIsoTime } from '../../base/iso-time.ts';
import type { ApiBackend } from './backend.ts';

export interface ParameterDocument {
  readonly name: string;
  readonly description: string;
  readonly schema: Readonly<Record<string, unknown>>;
}

export interface Call {
  readonly backend: ApiBackend;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Values of the {names} of the path, decoded. */
  readonly path: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Parsed JSON body of a POST; an empty object where there is none. */
  readonly body: Readonly<Record<string, unknown>>;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** "/v1/points/{point}". */
  readonly path: string;
  readonly summary: string;
  readonly query?: readonly ParameterDocument[];
  /** Name of a schema of openapi-schemas.ts. */
  readonly requestSchema?: string;
  /** Name of a schema, or null for a route that answers bytes by itself. */
  readonly responseSchema: string | null;
  readonly status: number;
  /** Returns the JSON to answer, or undefined where it has answered by itself. */
  handle(call: Call): Promise<unknown>;
}

/** The route's parameters where method and path fit, else null. */
export function matchPath(route: Route, pathname: string): Record<string, string> | null {
  const wanted = route.path.split('/');
  const given = pathname.split('/');
  if (wanted.length !== given.length) return null;
  const values: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    if (part.startsWith('{')) values[part.slice(1, -1)] = decodePart(given[index]!);
    else if (part !== given[index]) return null;
  }
  return values;
}

function decodePart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new UnderstudyError('ERR_API_REQUEST', `not a path: "${text}"`, {}, cause);
  }
}

export function integerOf(text: string | null, name: string, fallback: number, maximum: number) {
  if (text === null) return fallback;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value > maximum) {
    throw new UnderstudyError('ERR_API_REQUEST', `${name} must be a number up to ${maximum}`);
  }
  return value;
}

export function timeOf(text: string | null, name: string): number | undefined {
  if (text === null) return undefined;
  const value = parseIsoTime(text);
  if (value === null || value === 'no zone') {
    const message = `${name} must be an ISO 8601 time with its zone: "${text}"`;
    throw new UnderstudyError('ERR_API_REQUEST', message);
  }
  return value;
}
