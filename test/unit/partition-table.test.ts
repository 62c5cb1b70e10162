/** The one reader of partition tables: real ones by sfdisk, drawn ones, hostile ones. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readPartitionTable, TABLE_BYTES } from '../../src/model/partition-table.ts';
import fc from './support/properties.ts';
import { tableOf } from './support/recorded-machine.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-table-'));
  path = join(folder, 'disk');
});
afterEach(() => rmSync(folder, { recursive: true }));

const types = ['c12a7328-f81f-11d2-ba4b-00a0c93ec93b', '21686148-6449-6e6f-744e-656564454649'];

describe('readPartitionTable', () => {
  it.each([512, 4096])('reads a GPT with sectors of %i bytes', (sectorBytes) => {
    const bytes = tableOf({ kind: 'gpt', bootCode: true, types }, sectorBytes);
    const table = { kind: 'gpt', sectorBytes, hasBootCode: true, types };
    expect(readPartitionTable(bytes, sectorBytes)).toMatchObject(table);
    expect(readPartitionTable(bytes)).toMatchObject(table);
    expect(readPartitionTable(bytes, sectorBytes === 512 ? 4096 : 512)).toMatchObject({
      kind: 'none',
      isProtective: true,
    });
  });

  it('reads what sfdisk writes', () => {
    writeFileSync(path, Buffer.alloc(8 * 2 ** 20));
    const script = 'label: gpt\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\ntype=linux\n';
    execFileSync('sfdisk', ['-q', path], { input: script });
    const head = execFileSync('head', ['-c', '65536', path]);
    expect(readPartitionTable(head)).toMatchObject({
      kind: 'gpt',
      types: ['21686148-6449-6e6f-744e-656564454649', '0fc63daf-8483-4772-8e79-3d69d8477de4'],
    });
    execFileSync('sfdisk', ['-q', path], { input: 'label: dos\ntype=83,bootable\n' });
    const mbr = execFileSync('head', ['-c', '65536', path]);
    expect(readPartitionTable(mbr)).toMatchObject({ kind: 'mbr', types: ['83'] });
  });

  it('finds none in a disk without, and none in a file system with the same signature', () => {
    const none = { kind: 'none', types: [], isProtective: false, hasBootCode: false };
    expect(readPartitionTable(Buffer.alloc(TABLE_BYTES))).toMatchObject(none);
    const vfat = Buffer.alloc(TABLE_BYTES);
    vfat.writeUInt16LE(0xaa55, 510);
    expect(readPartitionTable(vfat)).toMatchObject({ ...none, hasSignature: true });
    expect(readPartitionTable(Buffer.alloc(0))).toMatchObject(none);
  });

  it('takes no GPT for one that no entry of the MBR announces', () => {
    const bytes = tableOf({ kind: 'gpt', bootCode: true, types });
    bytes[446 + 4] = 0x83;
    expect(readPartitionTable(bytes)).toMatchObject({ kind: 'mbr', types: ['83'] });
  });

  it('never fails, whatever lies there, whatever its numbers and its length', () => {
    const any = fc.uint8Array({ minLength: 1, maxLength: 3000 });
    fc.assert(
      fc.property(any, fc.nat({ max: 40_000 }), fc.nat(TABLE_BYTES), (bytes, at, length) => {
        const gpt = tableOf({ kind: 'gpt', bootCode: false, types });
        gpt.set(bytes, at);
        gpt[446 + 4] = 0xee;
        gpt.writeUInt16LE(0xaa55, 510);
        expect(readPartitionTable(gpt.subarray(0, length)).types.length).toBeLessThanOrEqual(1024);
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2048 }), (all) => void readPartitionTable(all)),
    );
  });
});
