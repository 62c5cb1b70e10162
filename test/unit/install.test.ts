/** The installer, into the tree of a machine that does not run: what it leaves alone. */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-install-'));
  mkdirSync(join(folder, 'root/etc'), { recursive: true });
  writeFileSync(join(folder, 'root/etc/passwd'), 'understudy:x:998:998::/:/bin/false\n');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Installs a package of a role and version; `id` is told to say 0. */
function install(role: string, version: string) {
  const tree = join(folder, `${role}-${version}`);
  const bin = join(folder, 'bin');
  for (const name of ['bin', 'install/systemd']) mkdirSync(join(tree, name), { recursive: true });
  mkdirSync(bin, { recursive: true });
  for (const name of ['id', 'chown']) {
    writeFileSync(join(bin, name), '#!/bin/sh\necho 0\n', { mode: 0o755 });
  }
  copyFileSync('install/install.sh', join(tree, 'install.sh'));
  const examples = ['agent', 'staging', 'operator'].map((name) => `${name}.json.example`);
  for (const name of [...examples, `systemd/understudy-${role}.service`]) {
    copyFileSync(join('install', name), join(tree, 'install', name));
  }
  writeFileSync(join(tree, 'ROLE'), `${role}\n`);
  writeFileSync(join(tree, 'bin/understudy'), version, { mode: 0o755 });
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
  const words = [join(tree, 'install.sh'), '--root', join(folder, 'root')];
  return spawnSync('sh', words, { env, encoding: 'utf8' });
}
const program = (): string =>
  readFileSync(join(folder, 'root/opt/understudy/bin/understudy'), 'utf8');

it('a newer package replaces the program, and leaves the config alone', () => {
  expect(install('staging', '1')).toMatchObject({ status: 0 });
  const config = join(folder, 'root/etc/understudy/staging.json');
  writeFileSync(config, '{"own": 1}');
  expect(install('staging', '2')).toMatchObject({ status: 0 });
  expect(program()).toBe('2');
  expect(readFileSync(config, 'utf8')).toBe('{"own": 1}');
  for (const name of ['new', 'old']) {
    expect(existsSync(join(folder, `root/opt/understudy.${name}`))).toBe(false);
  }
});

it('a certificate that cannot be made says why, and does not stand in the way of the next', () => {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const openssl = '#!/bin/sh\ntouch "$KEY"; echo no such curve >&2; exit 1\n';
  writeFileSync(join(bin, 'openssl'), openssl, { mode: 0o755 });
  const KEY = join(folder, 'staging.key');
  const make = (path: string) =>
    spawnSync('sh', ['install/make-certificate.sh', folder, 'staging.lan'], {
      ...{ env: { ...process.env, KEY, PATH: path }, encoding: 'utf8' },
    });
  const { status, stderr } = make(`${bin}:${process.env.PATH}`);
  expect([status, stderr]).toEqual([1, 'error: openssl: no such curve\n']);
  expect(existsSync(KEY)).toBe(false);
  expect(make(process.env.PATH!)).toMatchObject({ status: 0 });
  expect(existsSync(KEY)).toBe(true);
});

it('a package of the other role does not replace it: that one would not start again', () => {
  install('staging', '1');
  const { status, stderr } = install('agent', '2');
  expect(status).toBe(1);
  expect(stderr).toContain('/opt/understudy holds the program of staging');
  expect(program()).toBe('1');
  expect(existsSync(join(folder, 'root/etc/understudy/agent.json'))).toBe(false);
});
