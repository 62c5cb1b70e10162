/**
 * Makes `test/fixtures/damaged`: one small repository, the same bytes each time, and a copy of it for each
 * kind of damage that a check must find. Beside each lies what the check tells (`KIND.json`), to be looked
 * at by a human when it changes; the test restores every point as well, so that nothing is believed that
 * is only written down.
 *
 *     node test/tools/make-damaged.ts [--only KIND] [--into FOLDER]
 */
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { kinds } from './damage-kinds.ts';
import { lookAt } from './damage-verdict.ts';
import { type Files, smallRepository } from './small-repository.ts';

const { values } = parseArgs({
  options: { only: { type: 'string' }, into: { type: 'string' } },
});
const into = resolve(values.into ?? join(import.meta.dirname, '../fixtures/damaged'));

function writeFiles(folder: string, files: Files): void {
  rmSync(folder, { recursive: true, force: true });
  for (const [path, bytes] of files) {
    const to = join(folder, path);
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, bytes);
  }
}

const writeJson = (path: string, value: unknown): void =>
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);

const { files, points } = await smallRepository();
mkdirSync(into, { recursive: true });
const images = points.map(({ id, contents }) => {
  const digests = [...contents].map(([volume, bytes]) => [
    volume,
    createHash('sha256').update(bytes).digest('hex'),
  ]);
  return { id, volumes: Object.fromEntries(digests) };
});
writeJson(join(into, 'points.json'), images);
for (const [kind, make] of Object.entries(kinds)) {
  if (values.only !== undefined && values.only !== kind) continue;
  const folder = join(into, kind);
  const isKept = ([path]: [string, Uint8Array]) =>
    path.startsWith('repo/') || /catalog|point-missing/.test(kind);
  writeFiles(folder, new Map([...files].filter(isKept)));
  const { what } = make(folder);
  const scratch = `${folder}.scratch`;
  cpSync(folder, scratch, { recursive: true });
  const verdict = await lookAt(scratch);
  rmSync(scratch, { recursive: true });
  writeJson(`${folder}.json`, { what, ...verdict });
  process.stdout.write(`${kind}: ${JSON.stringify(verdict)}\n`);
}
