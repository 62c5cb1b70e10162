/** format.json (FORMAT.md, "The repository"): whatever of it is changed is found, and what it must say is refused. */
import { expect, it } from 'vitest';
import {
  encodeFormat,
  formatFault,
  readFormatObject,
  withoutFlip,
} from '../../src/store/format/format.ts';

const id = 'ab'.repeat(16);
const CREATED_MS = 1_763_000_000_000;

const read = (text: string) =>
  readFormatObject(
    { exists: async () => true, readFile: async () => new Uint8Array(Buffer.from(text)) },
    { format: '/repo/format.json' },
  );

const formats = [
  { id, encryption: null },
  { id, encryption: { names: 'hmac-sha-256' } },
] as const;

it.each(formats)('of %j is read as it was written', async (format) => {
  const text = Buffer.from(encodeFormat(format, CREATED_MS)).toString();
  expect(await read(text)).toEqual(format);
  // What later versions may add is ignored.
  expect(await read(text.replace('{', '{"more": 1,'))).toEqual(format);
});

it.each(formats)('of %j with any flipped bit is found, and is as it was again', async (format) => {
  const bytes = encodeFormat(format, CREATED_MS, { copyOf: { repository: 'cd'.repeat(16) } });
  const sound = Buffer.from(bytes).toString();
  // Repositories that were made before there was a checksum, and what must not be wrong in any of them.
  const old = `${sound.slice(0, sound.indexOf(',\n  "checksum"'))}\n}\n`;
  expect(formatFault(bytes)).toBeNull();
  expect(formatFault(Buffer.from(old))).toBeNull();
  expect(await read(old)).toEqual(format);
  const free = [String(CREATED_MS), id, 'cd'.repeat(16)].flatMap((value) => {
    const start = sound.indexOf(value);
    return Array.from(value, (_, index) => start + index);
  });
  const isWell = async (changed: Uint8Array) => {
    const text = Buffer.from(changed).toString();
    const code = await read(text).then(
      () => null,
      (error: { code?: string }) => error.code,
    );
    if (code === null) return formatFault(changed) === null;
    expect(code).toBe('ERR_DATA_FORMAT');
    return false;
  };
  for (let at = 0; at < bytes.length; at += 1) {
    for (let bit = 0; bit < 8; bit += 1) {
      const changed = Uint8Array.from(bytes);
      changed[at]! ^= 1 << bit;
      expect(await isWell(changed), Buffer.from(changed).toString()).toBe(false);
      if (bit === at % 8) expect(withoutFlip(changed)).toEqual(Uint8Array.from(bytes));
      const before = Buffer.from(old);
      if (at >= before.length || free.includes(at) || sound[at] !== old[at]) continue;
      before[at]! ^= 1 << bit;
      expect(await isWell(before), before.toString()).toBe(false);
    }
  }
});

it('with two flipped bits is told, and nothing is guessed', () => {
  const bytes = encodeFormat({ id, encryption: null }, CREATED_MS);
  bytes[60]! ^= 1;
  bytes[200]! ^= 4;
  expect(withoutFlip(bytes)).toBeNull();
});
