/**
 * A credential for the images of one point until a time, for what reads them outside of the service:
 * still good after a restart.
 *
 *   "image1.<point, base64url>.<expires, milliseconds>.<signature>" (signed-parts.ts)
 */
import { signedParts, signParts } from './signed-parts.ts';

export const COOKIE_NAME = 'understudy_token';
const KIND = 'image1';
const PURPOSE = 'understudy image grant';

export function makeImageGrant(token: string, point: string, expiresMs: number): string {
  const name = Buffer.from(point).toString('base64url');
  return signParts(token, PURPOSE, [KIND, name, String(Math.round(expiresMs))]);
}

/** The point whose images it opens; null where it is none of ours, or its time is over. */
export function pointOfGrant(token: string, grant: string, nowMs: number): string | null {
  const [kind, point, expiresMs, ...rest] = signedParts(token, PURPOSE, grant) ?? [];
  if (kind !== KIND || point === undefined || rest.length > 0) return null;
  return Number(expiresMs) > nowMs ? Buffer.from(point, 'base64url').toString('utf8') : null;
}
