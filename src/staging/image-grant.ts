/**
 * A credential for the images of one point until a time, for programs that read them (QEMU's, nbdkit's):
 * made of the service's token, so nothing is kept, and it is still good after a restart.
 *
 *   "image1.<point, base64url>.<expires, milliseconds>.<HMAC-SHA256 of what is before it, base64url>"
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

export const COOKIE_NAME = 'understudy_token';
const KIND = 'image1';

const sealOf = (token: string, text: string): string =>
  createHmac('sha256', `understudy image grant\0${token}`).update(text).digest('base64url');

export function makeImageGrant(token: string, point: string, expiresMs: number): string {
  const text = [KIND, Buffer.from(point).toString('base64url'), Math.round(expiresMs)].join('.');
  return `${text}.${sealOf(token, text)}`;
}

/** The point whose images it opens; null where it is none of ours, or its time is over. */
export function pointOfGrant(token: string, grant: string, nowMs: number): string | null {
  const parts = grant.split('.');
  if (parts.length !== 4 || parts[0] !== KIND) return null;
  const wanted = Buffer.from(sealOf(token, parts.slice(0, 3).join('.')));
  const given = Buffer.from(parts[3]!);
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) return null;
  if (!(Number(parts[2]) > nowMs)) return null;
  return Buffer.from(parts[1]!, 'base64url').toString('utf8');
}
