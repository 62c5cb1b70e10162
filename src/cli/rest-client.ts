/**
 * The REST calls of the command line: fetch with the operator's token, over TLS with the operator's own
 * certificate authority where given. Errors of the service arrive with the service's code; a service that
 * cannot be reached, or that is none of ours, has codes of its own.
 */
import { readFile } from 'node:fs/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { type ErrorCode, errorCatalogue, UnderstudyError } from '../base/errors.ts';
import { MIB } from '../base/units.ts';

export interface RestClient {
  readonly url: string;
  /** A JSON call. `query` values that are undefined are left out. */
  call<Answer>(
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    options?: CallOptions,
  ): Promise<Answer>;
  /** Exactly `length` bytes at `offset` of a resource with ranges. */
  range(path: string, offset: number, length: number, etag?: string): Promise<Uint8Array>;
  /** Length and validator of such a resource. */
  head(path: string): Promise<{ sizeBytes: number; etag: string }>;
}

export interface CallOptions {
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
}

export interface ClientOptions {
  readonly url: string;
  readonly tokenFile: string;
  readonly caFile: string | undefined;
  readonly signal: AbortSignal;
}

export async function readToken(path: string): Promise<string> {
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    throw new UnderstudyError(
      'ERR_CLI_TOKEN',
      `cannot read the token file ${path}`,
      { path },
      cause,
    );
  }
  if (!/^[\x21-\x7e]+$/.test(text)) {
    throw new UnderstudyError('ERR_CLI_TOKEN', `${path} does not hold a token`, { path });
  }
  return text;
}

/** PEM text of a certificate authority. */
export async function readAuthority(path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new UnderstudyError('ERR_CLI_CERTIFICATE', `cannot read ${path}`, { path }, cause);
  }
  if (!text.includes('-----BEGIN CERTIFICATE-----')) {
    throw new UnderstudyError('ERR_CLI_CERTIFICATE', `${path} holds no PEM certificate`, { path });
  }
  return text;
}

/** The base address, without a slash at its end. Anything but loopback must be https. */
export function normalizeServiceUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^(https?|wss?):$/.test(url.protocol)) {
    throw new UnderstudyError('ERR_USAGE', `--staging: not an http(s) URL: "${text}"`);
  }
  url.protocol = url.protocol.replace(/^ws/, 'http');
  if (url.protocol === 'http:' && !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname)) {
    throw new UnderstudyError('ERR_USAGE', `--staging: ${url.host} is not this machine: use https`);
  }
  return url.origin + url.pathname.replace(/\/+$/, '');
}

const certificateCodes = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'CERT_HAS_EXPIRED',
]);

const PLAIN = 'it speaks no TLS (http?)';

function unreachable(url: string, cause: unknown): UnderstudyError {
  const inner =
    cause instanceof Error ? (cause.cause as NodeJS.ErrnoException | undefined) : undefined;
  const code = inner?.code;
  if (code !== undefined && certificateCodes.has(code)) {
    const message = `the certificate of ${url} is not trusted: ${code}`;
    return new UnderstudyError('ERR_CLI_CERTIFICATE', message, {}, cause);
  }
  // What OpenSSL says to it would stand behind the message, and tells nobody anything.
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER') {
    return new UnderstudyError('ERR_CLI_UNREACHABLE', `no answer from ${url}: ${PLAIN}`);
  }
  const why = inner?.message || code || (cause instanceof Error ? cause.message : String(cause));
  const reason = inner ?? cause;
  return new UnderstudyError('ERR_CLI_UNREACHABLE', `no answer from ${url}: ${why}`, {}, reason);
}

/** The service's own error, by its code where we know it. */
export function errorFromService(
  error: { code?: unknown; message?: unknown } | null | undefined,
  who: string,
): UnderstudyError {
  const code = String(error?.code ?? '');
  const message = String(error?.message ?? '');
  if (Object.hasOwn(errorCatalogue, code)) return new UnderstudyError(code as ErrorCode, message);
  return new UnderstudyError('ERR_CLI_RESPONSE', `${who}: ${code} ${message}`.trim());
}

/** The error in an answer that is none of the 2xx. */
export function errorFromAnswer(status: number, text: string, url: string): UnderstudyError {
  try {
    const body = JSON.parse(text) as { error?: { code?: unknown; message?: unknown } };
    return errorFromService(body.error, `${url} answered ${status}`);
  } catch (cause) {
    const what = `${url} answered ${status}, not as understudy does`;
    return new UnderstudyError('ERR_CLI_RESPONSE', what, {}, cause);
  }
}

export async function createRestClient(options: ClientOptions): Promise<RestClient> {
  const url = normalizeServiceUrl(options.url);
  const token = await readToken(options.tokenFile);
  if (options.caFile !== undefined) {
    const authority = await readAuthority(options.caFile);
    setDefaultCACertificates([...getCACertificates('default'), authority]);
  }
  const send = async (method: string, path: string, init: RequestInit = {}): Promise<Response> => {
    let response: Response;
    try {
      response = await fetch(url + path, {
        ...init,
        method,
        signal: options.signal,
        headers: { ...init.headers, authorization: `Bearer ${token}` },
      });
    } catch (cause) {
      throw unreachable(url, cause);
    }
    if (response.ok) return response;
    // An answer to HEAD has no body, so it cannot say what is wrong: that to a GET does.
    if (method === 'HEAD') await send('GET', path, { headers: { range: 'bytes=0-0' } });
    throw errorFromAnswer(response.status, await response.text(), url);
  };
  return {
    url,
    async call<Answer>(method: string, path: string, { query = {}, body }: CallOptions = {}) {
      const given = Object.entries(query).filter(([, value]) => value !== undefined);
      const search = new URLSearchParams(
        Object.fromEntries(given.map(([key, value]) => [key, String(value)])),
      );
      const response = await send(method, given.length > 0 ? `${path}?${search}` : path, {
        ...(body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      });
      return parseAnswer<Answer>(response, url);
    },
    range: (path, offset, length, etag) => fetchRange(send, path, { offset, length, etag }),
    async head(path) {
      const { headers } = await send('HEAD', path);
      return { sizeBytes: Number(headers.get('content-length')), etag: headers.get('etag') ?? '' };
    },
  };
}

async function parseAnswer<Answer>(response: Response, url: string): Promise<Answer> {
  try {
    return (await response.json()) as Answer;
  } catch (cause) {
    throw new UnderstudyError('ERR_CLI_RESPONSE', `${url} answered without JSON`, {}, cause);
  }
}

type Send = (method: string, path: string, init: RequestInit) => Promise<Response>;

interface Wanted {
  readonly offset: number;
  readonly length: number;
  readonly etag: string | undefined;
}

/** Of so much the service knows that it can be read before it begins to answer. */
const STEP_BYTES = MIB;

/**
 * An answer that is cut short says not why: what was damaged in the middle of it is told when it is asked for by
 * itself, and what the network has cut is there.
 */
async function fetchRange(send: Send, path: string, wanted: Wanted): Promise<Uint8Array> {
  try {
    return await fetchOnce(send, path, wanted);
  } catch (error) {
    const { offset, length, etag } = wanted;
    const isCut = error instanceof UnderstudyError && error.code === 'ERR_CLI_UNREACHABLE';
    if (!isCut || length <= STEP_BYTES) throw error;
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += STEP_BYTES) {
      const step = { offset: offset + at, length: Math.min(STEP_BYTES, length - at), etag };
      bytes.set(await fetchOnce(send, path, step), at);
    }
    return bytes;
  }
}

async function fetchOnce(
  send: Send,
  path: string,
  { offset, length, etag }: Wanted,
): Promise<Uint8Array> {
  const response = await send('GET', path, {
    headers: {
      range: `bytes=${offset}-${offset + length - 1}`,
      ...(etag === undefined ? {} : { 'if-match': etag }),
    },
  });
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw unreachable(path, cause);
  }
  if (response.status !== 206 || bytes.length !== length) {
    const what = `asked for ${length} bytes, got ${bytes.length} (status ${response.status})`;
    throw new UnderstudyError('ERR_CLI_RESPONSE', what, { offset });
  }
  return bytes;
}
