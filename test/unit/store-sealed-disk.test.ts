/**
 * Sealed files: what is read is what was written, whatever the ranges; what was changed is never read; and
 * the bytes of one file and one pack as they must stay.
 */
import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { sha256, toHex } from '../../src/store/format/checksum.ts';
import { keyedNames } from '../../src/store/format/names.ts';
import { sealedDisk } from '../../src/store/keys/sealed-disk.ts';
import { SealedVault } from '../../src/store/keys/vault.ts';
import { DigestTable } from '../../src/store/packs/digest-table.ts';
import { encodeFooter } from '../../src/store/packs/pack-format.ts';
import {
  encodeRecord,
  PIECE_HEADER_BYTES,
  piecePlace,
  RECORD_END,
  RECORD_PIECE,
  sealRecord,
  writePieceHeader,
} from '../../src/store/packs/record.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { NonceWatch } from './support/key-mode.ts';

const folders = { repo: '/r', journal: '/j' };
const dataKey = { id: '0123456789abcdef', key: new Uint8Array(32).fill(3) };
const makeVault = (aead = new NonceWatch()) =>
  new SealedVault(
    keyedNames(new Uint8Array(32).fill(4)),
    {
      ...{ current: dataKey, nameKey: new Uint8Array(32).fill(4) },
      find: async (id) => (id === dataKey.id ? dataKey : null),
      refresh: async () => null,
      faults: async () => [],
      mends: async () => [],
    },
    aead,
  );

async function world(seed: number) {
  const disk = new FaultyDisk();
  await disk.makeDirectory('/r');
  const random = new Random(seed);
  const sealed = sealedDisk(disk, makeVault(), folders, (count) => random.bytes(count));
  return { disk, sealed, random };
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

describe('sealed files', () => {
  it('read as they were written: front to back, with holes, the head last', async () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const { disk, sealed, random } = await world(seed);
      const size = random.pick([0, 1, 16_383, 16_384, 16_385, 32_768, 100_000, 1_200_000]);
      const model = new Uint8Array(size);
      const head = random.below(Math.min(size, 50_000) + 1);
      const file = await sealed.open('/r/f', 'create');
      for (let at = head; at < size; ) {
        const length = Math.min(size - at, 1 + random.below(40_000));
        const isHole = at + length < size && random.chance(0.1);
        if (!isHole) {
          const bytes = random.bytes(Math.min(length, 500));
          const part = new Uint8Array(length).map((_, i) => bytes[i % bytes.length]!);
          model.set(part, at);
          const cut = random.below(length + 1);
          await file.write([part.subarray(0, cut), part.subarray(cut)], at);
        }
        at += length;
      }
      if (head > 0) {
        model.set(random.bytes(Math.min(head, 300)), 0);
        await file.write([model.subarray(0, head)], 0);
      }
      expect(await file.size()).toBe(size);
      await file.sync();
      await file.close();
      expect(Buffer.compare(await sealed.readFile('/r/f'), model), `seed ${seed}`).toBe(0);
      const reader = await sealed.open('/r/f', 'read');
      expect(await reader.size()).toBe(size);
      for (let i = 0; i < 20; i += 1) {
        const offset = random.below(size + 10);
        const buffer = new Uint8Array(random.below(60_000));
        const count = await reader.read(buffer, offset);
        expect(count).toBe(Math.max(0, Math.min(buffer.length, size - offset)));
        const expected = model.subarray(offset, offset + count);
        expect(Buffer.compare(buffer.subarray(0, count), expected), `seed ${seed}`).toBe(0);
      }
      await reader.close();
      expect(disk.peek('/r/f').length).toBe(64 + size + 16 * Math.max(1, Math.ceil(size / 16_384)));
    }
  });

  it('are never read where a byte was changed, blocks were exchanged, cut off or added', async () => {
    const { disk, sealed, random } = await world(7);
    const file = await sealed.open('/r/f', 'create');
    await file.write([random.bytes(50_000)], 0);
    await file.sync();
    await file.close();
    const good = disk.peek('/r/f').slice();
    const broken = async (bytes: Uint8Array, what: string) => {
      disk.poke('/r/f', bytes);
      expect(await codeOf(sealed.readFile('/r/f')), what).toMatch(
        /ERR_(OBJECT_DAMAGED|DATA_FORMAT)/,
      );
      const reader = await sealed.open('/r/f', 'read');
      const read = reader.read(new Uint8Array(50_000), 0);
      expect(await codeOf(read), what).toMatch(/ERR_(OBJECT_DAMAGED|DATA_FORMAT)/);
      await reader.close();
    };
    for (let i = 0; i < 60; i += 1) {
      const at = i < 20 ? i * 3 : random.below(good.length);
      const bytes = good.slice();
      bytes[at]! ^= 1 << random.below(8);
      await broken(bytes, `byte ${at}`);
    }
    const block = (n: number) => good.slice(64 + n * 16_400, 64 + (n + 1) * 16_400);
    const header = good.slice(0, 64);
    const rest = [block(2), good.slice(64 + 3 * 16_400)];
    await broken(Buffer.concat([header, block(1), block(0), ...rest]), 'exchanged');
    for (const blocks of [0, 1, 2, 3]) await broken(good.slice(0, 64 + blocks * 16_400), 'cut');
    await broken(Buffer.concat([good, block(0)]), 'added');
    await broken(good.slice(0, good.length - 1), 'cut within');
    await broken(new Uint8Array(50_000), 'plain');
  });

  it('are not written again where they are sealed, nor after their sync', async () => {
    const { sealed } = await world(8);
    const file = await sealed.open('/r/f', 'create');
    await file.write([new Uint8Array(40_000)], 0);
    expect(await codeOf(file.write([new Uint8Array(1)], 5))).toBe('ERR_BUG');
    await file.write([new Uint8Array(10)], 40_000);
    await file.sync();
    expect(await codeOf(file.write([new Uint8Array(1)], 60_000))).toBe('ERR_BUG');
    await file.sync();
    await file.close();
    expect(await codeOf(sealed.open('/r/f', 'write'))).toBe('ERR_BUG');
  });

  it('are told by their names', async () => {
    const { disk, sealed } = await world(9);
    for (const name of ['a.pack', 'format.json', 'a.key', '1.lease']) {
      const file = await sealed.open(`/r/${name}`, 'create');
      await file.write([Uint8Array.of(1, 2, 3)], 0);
      await file.sync();
      await file.close();
      expect(disk.peek(`/r/${name}`)).toHaveLength(3);
    }
  });
});

describe('names', () => {
  it('are HMAC-SHA-256 of the digest', () => {
    for (let seed = 1; seed < 50; seed += 1) {
      const random = new Random(seed);
      const [key, content] = [random.bytes(32), random.bytes(100)];
      const expected = createHmac('sha256', key).update(sha256(content)).digest('hex');
      expect(toHex(keyedNames(key).ofContent(content))).toBe(expected);
    }
  });
});

describe('bytes', () => {
  it('of a sealed file are those of the first version', async () => {
    const { disk } = await world(1);
    const salt = (count: number) => new Uint8Array(count).fill(9);
    const sealed = sealedDisk(disk, makeVault(), folders, salt);
    const file = await sealed.open('/r/f', 'create');
    await file.write([new Uint8Array(20_000).map((_, i) => i % 251)], 0);
    await file.sync();
    const bytes = disk.peek('/r/f');
    expect(toHex(bytes.subarray(0, 64))).toBe(GOLDEN.head);
    expect(toHex(sha256(bytes))).toBe(GOLDEN.file);
  });

  it('of a sealed pack are those of the first version', () => {
    const vault = makeVault();
    const given = {
      id: '00112233445566778899aabbccddeeff',
      sequence: 5,
      createdMs: 1_700_000_000_000,
    };
    const { header, seal } = vault.newPack(given);
    const content = new Uint8Array(1000).map((_, i) => i % 13);
    const digest = vault.names.ofContent(content);
    const owner = vault.names.ownerTag('web');
    const head = new Uint8Array(PIECE_HEADER_BYTES);
    const sizes = { rawLength: 1000, storedLength: 1016, codec: 0 as const };
    writePieceHeader(head, 0, { digest, ...sizes }, owner, RECORD_PIECE, 2);
    const parts = [header, head, ...seal.sealPiece(piecePlace(head, header.length), content)];
    const table = new DigestTable(0);
    const place = { offset: header.length + 64, isGrant: false, pack: 0 };
    table.add({ digest, owner, ...sizes, ...place });
    let size = parts.reduce((sum, part) => sum + part.length, 0);
    parts.push(sealRecord(encodeRecord(RECORD_END, new Uint8Array(0)), seal, size, 0));
    size += parts.at(-1)!.length;
    parts.push(...encodeFooter(table.sorted(), size, seal));
    const bytes = Buffer.concat(parts);
    expect(bytes.length).toBe(64 + 64 + 1016 + 40 + (16 + 56 + 16) + 64);
    expect(toHex(header)).toBe(GOLDEN.packHeader);
    expect(toHex(digest)).toBe(GOLDEN.name);
    expect(toHex(sha256(bytes))).toBe(GOLDEN.pack);
  });
});

const GOLDEN = {
  head:
    '55532d5345414c4401000000400000000123456789abcdef0909090909090909' +
    '09090909090909090909090909090909090909090909090985bcb6815c545917',
  file: '78f4bbdbe2d4a72151001b7e93fcb532fcb47e3be429ba845e18b700eb7766ad',
  packHeader:
    '55532d5041434b20020000004000000000112233445566778899aabbccddeeff' +
    '05000000000000000068e5cf8b0100000123456789abcdef4155b125bf1ce0d0',
  name: '4cd65737936629d3b1486e3477f5f2c50f2e5052a4c88d7b0459bea9224cb776',
  pack: 'fd6af8081b0c1f03a9f343f58a6aee4c665a0730ec0fe4971eaa950da7160f39',
};
