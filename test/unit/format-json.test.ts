/** format.json (FORMAT.md, "The repository"): whatever of what it must say is changed, the directory is refused. */
import { expect, it } from 'vitest';
import { encodeFormat, readFormatObject } from '../../src/store/format/format.ts';

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

it.each(formats)(
  'of %j with a flipped bit is refused, but for a digit of a number',
  async (format) => {
    const bytes = encodeFormat(format, CREATED_MS);
    const sound = Buffer.from(bytes).toString();
    const digits = [String(CREATED_MS), id].flatMap((value) => {
      const start = sound.indexOf(value);
      return Array.from(value, (_, index) => start + index);
    });
    for (let at = 0; at < bytes.length; at += 1) {
      if (digits.includes(at)) continue;
      for (let bit = 0; bit < 8; bit += 1) {
        const changed = Uint8Array.from(bytes);
        changed[at]! ^= 1 << bit;
        const text = Buffer.from(changed).toString();
        await expect(read(text), text).rejects.toMatchObject({ code: 'ERR_DATA_FORMAT' });
      }
    }
  },
);
