/**
 * Who may call: the service's token as a bearer token, as the password of basic authentication (any user:
 * what QEMU's and nbdkit's curl drivers can carry), or as a cookie. Compared in constant time. In its
 * place, a credential for the images of one point (image-grant.ts).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { COOKIE_NAME, pointOfGrant } from '../image-grant.ts';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

export function presentedToken(headers: IncomingHttpHeaders): string | null {
  const { authorization = '', cookie = '' } = headers;
  const bearer = /^Bearer ([\x21-\x7e]+)$/i.exec(authorization);
  if (bearer) return bearer[1]!;
  const basic = /^Basic ([A-Za-z0-9+/]+=*)$/i.exec(authorization);
  if (basic) {
    const text = Buffer.from(basic[1]!, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    return colon < 0 ? null : text.slice(colon + 1);
  }
  for (const part of cookie.split(';')) {
    const [name, value] = part.trim().split('=', 2);
    if (name === COOKIE_NAME && value !== undefined) return value;
  }
  return null;
}

/** The point whose images, and nothing else, the caller may read; null where it has no such credential. */
export function grantedPoint(
  headers: IncomingHttpHeaders,
  token: string,
  nowMs: number,
): string | null {
  const presented = presentedToken(headers);
  return presented === null ? null : pointOfGrant(token, presented, nowMs);
}

export function isAuthorized(headers: IncomingHttpHeaders, token: string): boolean {
  const presented = presentedToken(headers);
  return presented !== null && timingSafeEqual(digest(presented), digest(token));
}
