/**
 * The Range header, as RFC 9110 section 14 has it, for one range: pure. Several ranges, and what cannot be
 * parsed, are ignored (the whole is sent), as the RFC allows.
 */

export type RangeRequest =
  | { readonly kind: 'whole' }
  | { readonly kind: 'part'; readonly start: number; readonly length: number }
  | { readonly kind: 'unsatisfiable' };

const WHOLE: RangeRequest = { kind: 'whole' };
const UNSATISFIABLE: RangeRequest = { kind: 'unsatisfiable' };

export function parseRange(header: string | undefined, sizeBytes: number): RangeRequest {
  const match = /^bytes=\s*(\d{0,15})-(\d{0,15})\s*$/.exec(header ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return WHOLE;
  if (match[1] === '') {
    const suffix = Math.min(Number(match[2]), sizeBytes);
    return suffix === 0 ? UNSATISFIABLE : part(sizeBytes - suffix, sizeBytes - 1);
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? sizeBytes - 1 : Math.min(Number(match[2]), sizeBytes - 1);
  if (match[2] !== '' && Number(match[2]) < start) return WHOLE;
  return start >= sizeBytes ? UNSATISFIABLE : part(start, end);
}

const part = (start: number, end: number): RangeRequest => ({
  kind: 'part',
  start,
  length: end - start + 1,
});
