/** How a disk boots, told from its first bytes: real tables by sfdisk's layout, and hostile ones. */

import { describe, expect, it } from 'vitest';
import { TABLE_BYTES } from '../../src/model/partition-table.ts';
import { bootFacts } from '../../src/recovery/boot-mode.ts';
import fc from './support/properties.ts';

const ESP = '28732ac11ff8d211ba4b00a0c93ec93b';
const BIOS_BOOT = '4861682149646f6e744e656564454649';
const LINUX = 'af3dc60f838472478e793d69d8477de4';

/** A disk's head with a GPT of these type GUIDs, as they lie on the disk. */
function gpt(
  types: string[],
  { sector = 512, code = false, entriesAt = 2, size = 128 } = {},
): Buffer {
  const head = Buffer.alloc(TABLE_BYTES);
  if (code) head.fill(0x90, 0, 100);
  head[446 + 4] = 0xee;
  head.writeUInt16LE(0xaa55, 510);
  head.write('EFI PART', sector, 'latin1');
  head.writeBigUInt64LE(BigInt(entriesAt), sector + 72);
  head.writeUInt32LE(128, sector + 80);
  head.writeUInt32LE(size, sector + 84);
  types.forEach((type, index) => {
    head.write(type, entriesAt * sector + index * size, 'hex');
  });
  return head;
}

function mbr(types: number[], hasCode: boolean): Buffer {
  const head = Buffer.alloc(TABLE_BYTES);
  if (hasCode) head.fill(0x90, 0, 440);
  types.forEach((type, index) => {
    head[446 + index * 16 + 4] = type;
  });
  head.writeUInt16LE(0xaa55, 510);
  return head;
}

/** Partitioned anew by a program that knows no GPT: firmware and kernel go by the MBR. */
function stale(): Buffer {
  const head = gpt([ESP], { code: true });
  head[446 + 4] = 0x83;
  return head;
}

describe('a partition table tells how the disk boots', () => {
  it.each([
    ['GPT, BIOS boot partition', gpt([BIOS_BOOT, LINUX], { code: true }), 'gpt', 'bios'],
    ['GPT, both: BIOS', gpt([BIOS_BOOT, ESP, LINUX], { code: true }), 'gpt', 'bios'],
    ['GPT, BIOS boot partition without code, and ESP', gpt([BIOS_BOOT, ESP]), 'gpt', 'uefi'],
    ['GPT, ESP', gpt([ESP, LINUX]), 'gpt', 'uefi'],
    ['GPT, ESP, sectors of 4096', gpt([ESP], { sector: 4096 }), 'gpt', 'uefi'],
    [
      'GPT, ESP as the third, entries of 256',
      gpt([LINUX, LINUX, ESP], { size: 256 }),
      'gpt',
      'uefi',
    ],
    ['GPT, data', gpt([LINUX]), 'gpt', null],
    ['GPT, data, boot code', gpt([LINUX], { code: true }), 'gpt', 'bios'],
    ['a stale GPT under an MBR', stale(), 'mbr', 'bios'],
    ['a protective MBR without its GPT', mbr([0xee], false), 'none', null],
    ['MBR, boot code', mbr([0x83], true), 'mbr', 'bios'],
    ['MBR, ESP', mbr([0xef, 0x83], false), 'mbr', 'uefi'],
    ['MBR, data', mbr([0x83], false), 'mbr', null],
    ['boot code alone', mbr([], true), 'none', 'bios'],
    ['a file system without a table', Buffer.alloc(TABLE_BYTES, 7), 'none', null],
    ['zeros', Buffer.alloc(TABLE_BYTES), 'none', null],
    ['nothing', Buffer.alloc(0), 'none', null],
  ] as const)('%s', (_what, head, table, mode) => {
    expect(bootFacts(head)).toMatchObject({ table, mode });
  });
});

describe('a hostile table', () => {
  it('never throws, whatever its numbers and its length', () => {
    const number = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(number, word, word, fc.nat(TABLE_BYTES), (start, count, size, length) => {
        const head = gpt([ESP]);
        head.writeBigUInt64LE(start, 512 + 72);
        head.writeUInt32LE(count, 512 + 80);
        head.writeUInt32LE(size, 512 + 84);
        bootFacts(head.subarray(0, length));
      }),
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 2048 }), (bytes) => void bootFacts(bytes)));
  });
});
