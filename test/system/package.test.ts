/**
 * What scripts/package packs runs by itself, and install.sh puts it where install/README.md says: into the
 * tree of a machine that does not run, and on one that seems to run (this machine, seen through an overlay:
 * nothing of it is changed). Only systemd itself is a stand-in there; its units are verified by its own tool.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { freePort } from './helpers/machines.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';

const checkout = resolve(import.meta.dirname, '../..');

/** Nothing of this machine's environment helps, and no folder of modules lies around. */
function alone(command: string, ...words: string[]): string {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
  return execFileSync(command, words, { cwd: '/', env, encoding: 'utf8', stdio: 'pipe' });
}

/** Stands for systemctl: what it is told is written down, and a start always works. */
const systemctl = `#!/bin/sh
echo "$*" >>/systemctl.told
`;

/** This machine's tree with a layer of our own over it; `sh` runs in it as root, with the package in /package. */
function liveMachine(
  scratch: Scratch,
  unpacked: string,
): { path: string; sh: (line: string) => string } {
  const layers = scratch.path('layers');
  const path = scratch.path('machine');
  for (const folder of [layers, path]) mkdirSync(folder);
  alone('mount', '-t', 'tmpfs', 'layers', layers);
  scratch.defer(() => void alone('umount', layers));
  for (const name of ['changed', 'work']) mkdirSync(join(layers, name));
  const options = `lowerdir=/,upperdir=${layers}/changed,workdir=${layers}/work`;
  alone('mount', '-t', 'overlay', 'machine', '-o', options, path);
  scratch.defer(() => void alone('umount', path));
  for (const name of ['opt', 'etc/understudy', 'var/lib/understudy']) {
    rmSync(join(path, name), { recursive: true, force: true });
  }
  for (const name of ['run/systemd/system', 'package']) {
    mkdirSync(join(path, name), { recursive: true });
  }
  writeFileSync(join(path, 'usr/local/sbin/systemctl'), systemctl, { mode: 0o755 });
  const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };
  const sh = (line: string): string => {
    const whole = `mount -t proc proc ${path}/proc && mount --bind /dev ${path}/dev &&
      mount --bind ${unpacked} ${path}/package && exec chroot ${path} sh -c "$0"`;
    const words = ['--mount', 'sh', '-c', whole, line];
    return execFileSync('unshare', words, { cwd: '/', env, encoding: 'utf8', stdio: 'pipe' });
  };
  return { path, sh };
}

/** Serves as the user of the unit, as its unit says, until the line has run beside it. */
const whileServing = (line: string): string => `
  exec 3>&1
  { cd / && setpriv --reuid understudy --regid understudy --clear-groups --no-new-privs \
      /opt/understudy/bin/understudy staging run --config /etc/understudy/staging.json >/served 2>&1 & } 
  until grep -q 'staging is ready' /served; do kill -0 $! || { cat /served >&2; exit 1; }; sleep 0.1; done
  ${line}
  kill $!; wait $!`;

function unpack(scratch: Scratch, role: string): string {
  const archive = scratch.path(`${role}.tar`);
  const env = { ...process.env, TMPDIR: scratch.folder };
  execFileSync(join(checkout, 'scripts/package'), [role, archive], { env, stdio: 'pipe' });
  alone('tar', '-C', scratch.folder, '-xf', archive);
  return scratch.path(readdirSync(scratch.folder).find((name) => name.startsWith('understudy-'))!);
}

describe('a package', () => {
  it('of staging holds every module that it needs; installed, it serves, and is removed again', async () => {
    await withScratch('package-staging', async (scratch) => {
      const folder = unpack(scratch, 'staging');
      expect(alone(join(folder, 'bin/understudy'), '--version')).toMatch(/^\d+\.\d+\.\d+\n$/);
      const { dependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      const names = Object.keys(dependencies).filter((name) => name !== 'node-addon-api');
      const script = join(folder, 'dist/load.mjs');
      writeFileSync(script, names.map((name) => `import '${name}';`).join('\n'));
      alone(join(folder, 'bin/node'), script);
      expect(statSync(join(folder, 'install.sh')).mode & 0o111).not.toBe(0);

      const { path, sh } = liveMachine(scratch, folder);
      const left = sh('/package/install.sh');
      expect(left).toMatch(
        /left to do:\n {2}- make a certificate: .*make-certificate.sh .*\n {2}- systemctl start/,
      );
      sh('/opt/understudy/install/make-certificate.sh /etc/understudy staging.lan');
      expect(sh('/package/install.sh')).toContain('installed and started');
      expect(readFileSync(join(path, 'systemctl.told'), 'utf8')).toBe(
        'daemon-reload\ndaemon-reload\nrestart understudy-staging\n',
      );
      const port = await freePort();
      const at = (name: string) => join(path, 'etc/understudy', name);
      const set = (name: string, from: string, to: string) =>
        writeFileSync(at(name), readFileSync(at(name), 'utf8').replace(from, to));
      set('staging.json', '0.0.0.0:7007', `127.0.0.1:${port}`);
      set('operator.json', ':7007', `:${port}`);
      sh('mkdir -m 700 /var/lib/understudy && chown understudy: /var/lib/understudy');
      expect(JSON.parse(sh(whileServing('understudy server list --json')))).toEqual([]);
      expect(statSync(join(path, 'var/lib/understudy/token')).mode & 0o077).toBe(0);
      const completed = sh(`bash -c '. /usr/local/share/bash-completion/completions/understudy
        COMP_WORDS=(understudy server "") COMP_CWORD=2; _understudy_yargs_completions; echo "\${COMPREPLY[*]}"'`);
      expect(completed).toContain('admit');

      expect(sh('/opt/understudy/install.sh --remove')).toContain('/var/lib/understudy');
      for (const gone of [
        'opt/understudy',
        'usr/local/bin/understudy',
        'etc/systemd/system/understudy-staging.service',
      ]) {
        expect(existsSync(join(path, gone)), gone).toBe(false);
      }
      expect(existsSync(at('staging.key'))).toBe(true);
      expect(existsSync(join(path, 'var/lib/understudy/token'))).toBe(true);
    });
  });

  it.each(['agent', 'staging'])(
    'the unit of %s says nothing that systemd does not know',
    (role) => {
      const unit = join(checkout, `install/systemd/understudy-${role}.service`);
      const { stderr } = spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' });
      // The program is not installed here.
      const own = stderr.split('\n').filter((line) => line.includes(`understudy-${role}.service`));
      expect(own.filter((line) => !line.includes('is not executable'))).toEqual([]);
    },
  );

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
