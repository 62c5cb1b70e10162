/** What scripts/package packs runs by itself, and install.sh puts it where install/README.md says. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Scratch, withScratch } from './helpers/scratch.ts';

const checkout = resolve(import.meta.dirname, '../..');

/** Nothing of this machine's environment helps, and no folder of modules lies around. */
function alone(command: string, ...words: string[]): string {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
  return execFileSync(command, words, { cwd: '/', env, encoding: 'utf8', stdio: 'pipe' });
}

function unpack(scratch: Scratch, role: string): string {
  const archive = scratch.path(`${role}.tar`);
  const env = { ...process.env, TMPDIR: scratch.folder };
  execFileSync(join(checkout, 'scripts/package'), [role, archive], { env, stdio: 'pipe' });
  alone('tar', '-C', scratch.folder, '-xf', archive);
  return scratch.path(readdirSync(scratch.folder).find((name) => name.startsWith('understudy-'))!);
}

describe('a package', () => {
  it('of staging holds every module that it needs', async () => {
    await withScratch('package-staging', async (scratch) => {
      const folder = unpack(scratch, 'staging');
      expect(alone(join(folder, 'bin/understudy'), '--version')).toMatch(/^\d+\.\d+\.\d+\n$/);
      const { dependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      const names = Object.keys(dependencies).filter((name) => name !== 'node-addon-api');
      const script = join(folder, 'dist/load.mjs');
      writeFileSync(script, names.map((name) => `import '${name}';`).join('\n'));
      alone(join(folder, 'bin/node'), script);
      expect(statSync(join(folder, 'install.sh')).mode & 0o111).not.toBe(0);
    });
  });

  it('of an agent is installed into a tree, runs there, and an update leaves the config alone', async () => {
    await withScratch('package-agent', async (scratch) => {
      const folder = unpack(scratch, 'agent');
      expect(existsSync(join(folder, 'node_modules/@aws-sdk'))).toBe(false);
      const tree = scratch.path('tree');
      mkdirSync(join(tree, 'etc'), { recursive: true });
      alone(join(folder, 'install.sh'), '--root', tree);
      const config = join(tree, 'etc/understudy/agent.json');
      expect(statSync(config).mode & 0o077).toBe(0);
      expect(JSON.parse(readFileSync(config, 'utf8')).volume).toEqual(['root=root-disk']);
      const program = join(tree, 'opt/understudy/bin/understudy');
      // It loads the addon; what it thinks of this machine does not matter here.
      const words = ['agent', 'doctor', '--json', '--volume', config];
      const { stdout } = spawnSync(program, words, { cwd: '/', env: {}, encoding: 'utf8' });
      expect(JSON.parse(stdout).findings.length).toBeGreaterThan(0);
      alone(
        join(tree, 'opt/understudy/bin/node'),
        '-e',
        `require('${folder}/build/Release/understudy.node')`,
      );
      const unit = 'etc/systemd/system/understudy-agent.service';
      expect(readFileSync(join(tree, unit), 'utf8')).toContain(
        'ExecStart=/opt/understudy/bin/understudy',
      );
      expect(existsSync(join(tree, 'etc/systemd/system/multi-user.target.wants'))).toBe(true);

      writeFileSync(config, '{"server":"mine"}');
      writeFileSync(join(tree, 'opt/understudy/of-the-old-version'), '');
      alone(join(folder, 'install.sh'), '--root', tree);
      expect(readFileSync(config, 'utf8')).toBe('{"server":"mine"}');
      expect(readdirSync(join(tree, 'opt'))).toEqual(['understudy']);
      expect(existsSync(join(tree, 'opt/understudy/of-the-old-version'))).toBe(false);
    });
  });

  it('makes a certificate for names and addresses, and never replaces a key', async () => {
    await withScratch('package-certificate', async (scratch) => {
      const make = join(checkout, 'install/make-certificate.sh');
      alone(make, scratch.folder, 'staging.lan', '10.0.0.5', 'fd00::5');
      const words = ['-in', scratch.path('staging.pem'), '-noout', '-ext', 'subjectAltName'];
      const names = alone('openssl', 'x509', ...words);
      expect(names).toMatch(/DNS:staging.lan, IP Address:10.0.0.5, IP Address:FD00:/);
      expect(statSync(scratch.path('staging.key')).mode & 0o077).toBe(0);
      expect(() => alone(make, scratch.folder, 'other.lan')).toThrow(/is there already/);
    });
  });
});
