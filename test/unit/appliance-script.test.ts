/** What the preparation's virtual machine runs, function by function, under this machine's busybox. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { serveScript } from '../../src/recovery/prepare/appliance-script.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-script-'));
  mkdirSync(join(folder, 'own'));
  mkdirSync(join(folder, 'own/bin'));
  execFileSync('busybox', ['--install', '-s', join(folder, 'own/bin')]);
});
afterEach(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const OLD = 'the old text\n'.repeat(60);

/** `lines` with the functions at hand; contents come from the file own/in. What was printed. */
function run(lines: string): string {
  const own = `own=${at('own')}; receive() { true; }; cd ${folder}`;
  const script = [serveScript, own, lines].join('\n');
  const env = { PATH: at('own/bin') };
  return execFileSync(at('own/bin/sh'), ['-c', script], { encoding: 'utf8', stdio: 'pipe', env });
}

/** As a disk with room for 1 KiB more in a file. */
const full = `trap '' XFSZ; ulimit -f 2;`;

it('a file is written over as it is: shorter, longer, and with the mode that it has', () => {
  writeFileSync(at('a'), OLD, { mode: 0o640 });
  for (const text of ['short', 'long '.repeat(500)]) {
    writeFileSync(at('own/in'), text);
    expect(run('do_write 0 600 a && stat -c %a a')).toBe('640\n');
    expect(readFileSync(at('a'), 'utf8')).toBe(text);
  }
  expect(run('do_write 0 600 new/b && stat -c %a new/b')).toBe('600\n');
});

it('a file that there is no room to rewrite is as it was, and a new one is not there', () => {
  writeFileSync(at('a'), OLD);
  writeFileSync(at('own/in'), 'new'.repeat(1000));
  expect(run(`${full} do_write 0 644 a || echo refused`)).toBe('refused\n');
  expect(readFileSync(at('a'), 'utf8')).toBe(OLD);
  expect(run(`${full} do_write 0 644 $PWD/b || echo refused`)).toBe('refused\n');
  expect(readdirSync(folder).sort()).toEqual(['a', 'own']);
});

it('half a copy is never taken for the original', () => {
  writeFileSync(at('a'), 'text'.repeat(1000));
  expect(run(`${full} do_keep 'a|b' || echo refused`)).toBe('refused\n');
  expect(readdirSync(folder).sort()).toEqual(['a', 'own']);
  expect(run(`do_keep 'a|b' && do_keep 'own/none|b' && wc -c <b`).trim()).toBe('4000');
});

it('the original of a file behind a link is that file', () => {
  writeFileSync(at('a'), OLD, { mode: 0o640 });
  expect(run("ln -s a link; do_keep 'link|kept' && stat -c '%F %a' kept")).toBe(
    'regular file 640\n',
  );
  writeFileSync(at('own/in'), 'new');
  run('do_write 0 644 link');
  expect([readFileSync(at('a'), 'utf8'), readFileSync(at('kept'), 'utf8')]).toEqual(['new', OLD]);
});

it('what is no plain file is not written to, and what cannot be read is not promised', () => {
  writeFileSync(at('own/in'), 'x');
  expect(run('mkfifo pipe; do_write 0 644 pipe 2>&1 || echo refused')).toBe(
    'is no file\nrefused\n',
  );
  const unreadable = 'cat() { echo I/O error >&2; return 1; }; echo x >a;';
  expect(run(`${unreadable} do_read 100 a 2>&1 || echo refused`)).toBe('I/O error\nrefused\n');
});

it('a list has a bound', () => {
  const names = Array.from({ length: 4500 }, (_, index) => `${'n'.repeat(246)}${index}`);
  mkdirSync(at('many'));
  for (const name of names) writeFileSync(join(at('many'), name), '');
  expect(run('do_list many').length).toBeLessThan(2 ** 20);
});

it('a machine that nobody asks any more goes off, and one that is asked does not', () => {
  const world = 'poweroff() { echo off; exit; }; rm() { busybox rm "$@"; }; sleep() { turn; };';
  const turn = (asks: number) =>
    `n=0; turn() { n=$((n + 1)); echo $n; [ $n -gt ${asks} ] || : >$own/alive; };`;
  expect(run(`${world} ${turn(2)} watch_host 600`)).toBe('1\n2\n3\noff\n');
});
