/** Images and services as others meet them: TLS, ranges, the tools of hypervisors, and no service at all. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { attachLoop, digestOfFile, sh } from './helpers/device.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Daemon, Staging, startAgent, understudy } from './helpers/understudy.ts';

const MIB = 1 << 20;

/** A quiet disk with data and holes, replicated up to a point that equals it. */
async function replicated(
  scratch: Scratch,
  words: readonly string[] = [],
): Promise<{ staging: Staging; disk: string; point: string; agent: Daemon }> {
  const { device } = attachLoop(scratch, scratch.path('disk'), 64 * MIB);
  for (const seek of [0, 20, 50]) {
    const where = [`of=${device}`, `seek=${seek}`, 'bs=1M', 'count=7'];
    sh('dd', 'if=/dev/urandom', ...where, 'oflag=direct', 'status=none');
  }
  const staging = await Staging.start(scratch, { words });
  const agent = startAgent(scratch, staging, { volumes: [device] });
  const point = (await staging.waitForPoints(1))[0]!.id;
  return { staging, disk: device, point, agent };
}

describe('an image', () => {
  it('is read over HTTP by curl with ranges, by qemu-img and by nbdkit', async () => {
    await withScratch('image-url', async (scratch) => {
      const { staging, disk, point } = await replicated(scratch);
      const volume = encodeURIComponent(disk);
      const url = `${staging.url}/v1/points/${point}/volumes/${volume}/image`;
      const token = readFileSync(staging.tokenFile, 'utf8').trim();

      const part = scratch.path('part');
      writeFileSync(scratch.path('curl.cfg'), `header = "Authorization: Bearer ${token}"\n`);
      sh('curl', '-sf', '-K', scratch.path('curl.cfg'), '-r', '1000-70000', '-o', part, url);
      sh('dd', `if=${disk}`, 'bs=1', 'skip=1000', 'count=69001', `of=${part}.want`, 'status=none');
      expect(digestOfFile(part)).toBe(digestOfFile(`${part}.want`));
      const head = sh('curl', '-sfI', '-K', scratch.path('curl.cfg'), url);
      expect(head).toMatch(/accept-ranges: bytes/i);
      expect(head).toMatch(new RegExp(`content-length: ${64 * MIB}`, 'i'));
      expect(head).toMatch(/etag: "/i);

      writeFileSync(scratch.path('secret'), token);
      const source = {
        driver: 'raw',
        file: { driver: 'http', url, username: 'understudy', 'password-secret': 'token' },
      };
      const converted = scratch.path('converted.raw');
      const secret = `secret,id=token,file=${scratch.path('secret')}`;
      const image = `json:${JSON.stringify(source)}`;
      sh('qemu-img', 'convert', '--object', secret, '-O', 'raw', image, converted);
      expect(digestOfFile(converted)).toBe(digestOfFile(disk));

      const read = 'qemu-img convert -f raw -O raw "$uri" "$0"';
      const copied = scratch.path('nbd.raw');
      const password = `password=+${scratch.path('secret')}`;
      sh(
        'nbdkit',
        '-r',
        'curl',
        `url=${url}`,
        'user=understudy',
        password,
        '--run',
        `${read.replace('"$0"', `"${copied}"`)}`,
      );
      expect(digestOfFile(copied)).toBe(digestOfFile(disk));
    });
  });

  it.each(['qcow2', 'vmdk', 'vhd'])('is exported as %s, equal to the disk', async (format) => {
    await withScratch('format', async (scratch) => {
      const { staging, disk, point } = await replicated(scratch);
      const out = scratch.path(`image.${format}`);
      await staging.export(point, disk, out, '--format', format);
      const driver = format === 'vhd' ? 'vpc' : format;
      sh('qemu-img', 'compare', '-f', driver, '-F', 'raw', out, disk);
    });
  });

  it('is exported for Google Compute Engine: a whole GiB of disk.raw in a tar', async () => {
    await withScratch('gcp', async (scratch) => {
      const { staging, disk, point } = await replicated(scratch);
      const out = scratch.path('image.tar.gz');
      await staging.export(point, disk, out, '--format', 'gcp');
      expect(sh('tar', '-tzf', out).trim()).toBe('disk.raw');
      sh('tar', '-xSzf', out, '-C', scratch.path('.'));
      const raw = scratch.path('disk.raw');
      expect(statSync(raw).size % 2 ** 30).toBe(0);
      // qemu-img takes the longer one for equal where its rest is zero.
      sh('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', raw, disk);
    });
  });

  it('is exported sparse, and an existing file is left alone without --yes', async () => {
    await withScratch('sparse', async (scratch) => {
      const { staging, disk, point } = await replicated(scratch);
      const out = scratch.path('image');
      await staging.export(point, disk, out);
      expect(statSync(out).blocks * 512).toBeLessThan(24 * MIB);
      writeFileSync(out, 'precious');
      await expect(staging.export(point, disk, out)).rejects.toThrow('ERR_EXPORT_EXISTS');
      expect(readFileSync(out, 'utf8')).toBe('precious');
      // A file would take the place of the disk's node.
      await expect(staging.export(point, disk, disk, '--yes')).rejects.toThrow('ERR_EXPORT_TARGET');
      expect(statSync(disk).isBlockDevice()).toBe(true);
    });
  });

  it('is restored from the directory alone: no service, no catalog (P7)', async () => {
    await withScratch('restore', async (scratch) => {
      const { staging, disk, agent } = await replicated(scratch);
      await agent.stop();
      await staging.daemon.stop();
      const elsewhere = scratch.path('elsewhere');
      sh('cp', '-a', `${staging.dataFolder}/repo`, elsewhere);
      expect(existsSync(`${elsewhere}/catalog.sqlite`)).toBe(false);
      const out = scratch.path('restored');
      const words = ['--repo', elsewhere, '--point', 'latest', '--volume', disk, '--out', out];
      const ran = await understudy(['repo', 'restore', ...words]);
      expect(ran.exitCode, ran.err).toBe(0);
      expect(digestOfFile(out)).toBe(digestOfFile(disk));
      const checked = await understudy([
        'repo',
        'check',
        '--repo',
        elsewhere,
        '--read-data',
        '--json',
      ]);
      expect(checked.exitCode, checked.err).toBe(0);
      expect(JSON.parse(checked.out).findings).toEqual([]);
    });
  });
});

describe('TLS', () => {
  it('carries agent and operators; a certificate that is not trusted is refused', async () => {
    await withScratch('tls', async (scratch) => {
      const [certificate, key] = [scratch.path('cert.pem'), scratch.path('key.pem')];
      const subject = ['-subj', '/CN=staging', '-addext', 'subjectAltName=IP:127.0.0.1'];
      sh(
        'openssl',
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '2',
        '-keyout',
        key,
        '-out',
        certificate,
        ...subject,
      );
      const words = ['--tls-cert', certificate, '--tls-key', key];
      const staging = await Staging.start(scratch, { words });
      expect(staging.url).toMatch(/^https:/);
      const { device } = attachLoop(scratch, scratch.path('disk'), 16 * MIB);
      const trusting = { ...staging.environment, UNDERSTUDY_CA: certificate };

      const untrusted = await understudy(['server', 'list'], staging.environment);
      expect(untrusted.err).toContain('(ERR_CLI_CERTIFICATE)');
      const line = ['agent', 'run', '--server', scratch.server, '--volume', device];
      const refused = await understudy(line, staging.environment);
      expect(refused.exitCode).toBe(3);
      expect(refused.err).toMatch(/^error: .*\(ERR_TLS_UNTRUSTED\)$/m);

      startAgent(scratch, staging, { volumes: [device], words: ['--ca', certificate] });
      const created = ['point', 'create', '--server', scratch.server, '--wait', '--json'];
      await expect
        .poll(async () => (await understudy(created, trusting)).exitCode, { timeout: 60_000 })
        .toBe(0);
      const exported = ['--point', 'latest', '--volume', device, '--out', scratch.path('image')];
      const ran = await understudy(['image', 'export', ...exported], trusting);
      expect(ran.exitCode, ran.err).toBe(0);
    });
  });
});

describe('a config file', () => {
  it('gives an agent its options', async () => {
    await withScratch('config', async (scratch) => {
      const staging = await Staging.start(scratch);
      const { device } = attachLoop(scratch, scratch.path('disk'), 16 * MIB);
      const config = {
        staging: staging.url,
        'token-file': staging.tokenFile,
        server: scratch.server,
        volume: [device],
        'cut-interval': '1s',
        tracker: 'bpf',
      };
      writeFileSync(scratch.path('agent.json'), JSON.stringify(config));
      const words = ['agent', 'run', '--config', scratch.path('agent.json')];
      const agent = new Daemon(scratch, 'configured', words);
      await staging.waitForPoints(1);
      const status = await understudy(['agent', 'status', '--server', scratch.server, '--json']);
      expect(JSON.parse(status.out)).toMatchObject({ server: scratch.server, pid: agent.pid });
      expect(await agent.stop('SIGINT')).toBe(0);
      expect((await understudy(['agent', 'detach', '--server', scratch.server])).exitCode).toBe(6);
      expect(
        (await understudy(['agent', 'detach', '--server', scratch.server, '--yes'])).exitCode,
      ).toBe(0);
    });
  });
});
