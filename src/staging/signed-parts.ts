/**
 * Credentials that are made of the service's token, so that none of them is kept: words and their HMAC,
 * joined by dots. A new token voids all of them.
 *
 *   "<part>.<part>. .. .<HMAC-SHA256 of what is before it, base64url>"
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

const sealOf = (key: string, text: string): string =>
  createHmac('sha256', key).update(text).digest('base64url');

/** `purpose`: what is signed for one opens nothing of another. Parts hold no dots. */
export function signParts(token: string, purpose: string, parts: readonly string[]): string {
  const text = parts.join('.');
  return `${text}.${sealOf(`${purpose}\0${token}`, text)}`;
}

/** Null: not signed by this token for this purpose. */
export function signedParts(token: string, purpose: string, signed: string): string[] | null {
  const parts = signed.split('.');
  const given = Buffer.from(parts.pop()!);
  const wanted = Buffer.from(sealOf(`${purpose}\0${token}`, parts.join('.')));
  return given.length === wanted.length && timingSafeEqual(given, wanted) ? parts : null;
}
