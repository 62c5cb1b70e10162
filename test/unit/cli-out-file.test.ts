/** Where an image may be written to: refused at once where a file would take the place of something else. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkOut } from '../../src/cli/out-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'uout-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
mkdirSync(path('folder'));
writeFileSync(path('file'), 'x');
symlinkSync('/dev/null', path('device'));
symlinkSync('file', path('link'));

describe('an image', () => {
  it.each([
    ['folder', `${path('folder')} is a folder, and an image is written to a file`],
    ['device', `${path('device')} is no plain file, and an image is written to a file`],
    ['n'.repeat(248), `the name has 248 bytes, and 247 fit: ${path('n'.repeat(248))}`],
  ])('does not take the place of %s', (name, message) => {
    const refused = expect.objectContaining({ code: 'ERR_EXPORT_TARGET', message });
    expect(() => checkOut(path(name), true)).toThrow(refused);
    expect(() => checkOut(path(name), false)).toThrow(refused);
  });

  it('takes the place of a file only where that is wanted', () => {
    for (const name of ['file', 'link']) {
      const exists = { code: 'ERR_EXPORT_EXISTS', message: `${path(name)} exists` };
      expect(() => checkOut(path(name), false)).toThrow(expect.objectContaining(exists));
      expect(() => checkOut(path(name), true)).not.toThrow();
    }
    expect(() => checkOut(path('n'.repeat(247)), false)).not.toThrow();
  });

  it('needs a folder that is there', () => {
    const missing = (name: string) => ({
      code: 'ERR_DISK_NOT_FOUND',
      message: `there is no folder ${path(name)}`,
    });
    for (const name of ['away', 'file']) {
      const refused = expect.objectContaining(missing(name));
      expect(() => checkOut(path(`${name}/image`), false)).toThrow(refused);
    }
  });
});
