/** What cannot work is told in one clear line with a code, and changes nothing. */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  cpSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { addPartition, removePartitions } from '../tools/loop-device.ts';
import { attachLoop, sh } from './helpers/device.ts';
import { startFakeStaging } from './helpers/fake-staging.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { detachAgent, type Ran, Staging, startAgent, understudy } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 1 << 20;

/** One line that names the error, one that helps, the code, the exit code. */
function expectRefusal(ran: Ran, code: string | RegExp, exitCode: number): void {
  const lines = ran.err.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
  expect(lines, ran.err).toHaveLength(2);
  expect(lines[0]).toMatch(/^error: .+ \(ERR_[A-Z_]+\)$/);
  expect(lines[0]).toMatch(code instanceof RegExp ? code : new RegExp(`\\(${code}\\)$`));
  expect(lines[1]).toMatch(/^hint: .+/);
  expect(ran.exitCode).toBe(exitCode);
}

/** Digest of names, sizes and contents under a folder. */
function digestOfTree(folder: string): string {
  const hash = createHash('sha256');
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  for (const entry of entries) {
    const path = join(folder, entry);
    hash.update(entry);
    if (statSync(path).isFile()) hash.update(readFileSync(path));
  }
  return hash.digest('hex');
}

function flipByte(path: string, offset: number): void {
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, offset);
  byte[0]! ^= 0x10;
  writeSync(fd, byte, 0, 1, offset);
  closeSync(fd);
}

const agentWords = (scratch: Scratch, staging: Staging, ...volumes: string[]): string[] => [
  ...['agent', 'run', '--staging', staging.url, '--token-file', staging.tokenFile],
  ...['--server', scratch.server, '--volume', ...volumes],
];

/** Runs an agent that is expected to end by itself; what it has pinned goes with the scratch. */
function tryAgent(
  scratch: Scratch,
  words: readonly string[],
  wrap: readonly string[] = [],
): Promise<Ran> {
  scratch.defer(() => detachAgent(scratch.server));
  return understudy(words, {}, wrap);
}

describe('agent run', () => {
  it('refuses a device that does not exist', async () => {
    await withScratch('unknown', async (scratch) => {
      const staging = await Staging.start(scratch);
      const ran = await tryAgent(scratch, agentWords(scratch, staging, '/dev/no-such-device'));
      expectRefusal(ran, 'ERR_DEVICE_OPEN', 3);
      expect(ran.err).toContain('/dev/no-such-device');
    });
  });

  it('refuses the place where a file system is mounted, in place of its device', async () => {
    await withScratch('folder', async (scratch) => {
      const staging = await Staging.start(scratch);
      const ran = await tryAgent(scratch, agentWords(scratch, staging, scratch.folder));
      expectRefusal(ran, 'ERR_DEVICE_NOT_VOLUME', 2);
    });
  });

  it('refuses a volume that it may not read', async () => {
    await withScratch('permission', async (scratch) => {
      const staging = await Staging.start(scratch);
      const volume = scratch.path('volume');
      writeFileSync(volume, Buffer.alloc(MIB));
      chmodSync(volume, 0);
      const powerless = ['setpriv', '--bounding-set=-all', '--inh-caps=-all'];
      const ran = await tryAgent(scratch, agentWords(scratch, staging, volume), powerless);
      expectRefusal(ran, 'ERR_DEVICE_OPEN', 3);
      expect(ran.err).toContain('EACCES');
    });
  });

  it('refuses two volumes that overlap: a disk and its partition', async () => {
    await withScratch('overlap', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 32 * MIB);
      scratch.defer(() => removePartitions(disk.device));
      const partition = addPartition(disk.device, ',,L');
      const ran = await tryAgent(scratch, agentWords(scratch, staging, disk.device, partition));
      expectRefusal(ran, /overlap/, 6);
      expect((await staging.json<unknown[]>('server', 'list')).length).toBe(0);
    });
  });

  it('refuses the same volume twice', async () => {
    await withScratch('twice', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 32 * MIB);
      const ran = await tryAgent(scratch, agentWords(scratch, staging, disk.device, disk.device));
      expect(ran.exitCode).not.toBe(0);
      expect(ran.err).toMatch(/^error: .*\n/m);
    });
  });

  it('refuses to send a token in clear text to another machine', async () => {
    await withScratch('clear', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 32 * MIB);
      const words = agentWords(scratch, staging, disk.device);
      words[3] = 'http://192.0.2.1:7000';
      expectRefusal(await understudy(words), 'ERR_USAGE', 2);
    });
  });

  it('with a wrong token is refused', async () => {
    await withScratch('token', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 32 * MIB);
      const wrong = scratch.path('wrong-token');
      writeFileSync(wrong, 'not-the-token-of-this-service\n');
      const words = agentWords(scratch, staging, disk.device);
      words[words.indexOf('--token-file') + 1] = wrong;
      expectRefusal(await tryAgent(scratch, words), 'ERR_UNAUTHORIZED', 6);
      const asOperator = await understudy(['server', 'list'], {
        UNDERSTUDY_STAGING: staging.url,
        UNDERSTUDY_TOKEN_FILE: wrong,
      });
      expectRefusal(asOperator, 'ERR_UNAUTHORIZED', 6);
      expect((await staging.json<unknown[]>('server', 'list')).length).toBe(0);
    });
  });

  it('with the token of another server is refused, and it opens nothing else', async () => {
    await withScratch('of-another', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 32 * MIB);
      const out = scratch.path('other.token');
      await staging.json('server', 'token', 'other', '--out', out);
      expect(statSync(out).mode & 0o077).toBe(0);
      const words = agentWords(scratch, staging, disk.device);
      words[words.indexOf('--token-file') + 1] = out;
      expectRefusal(await tryAgent(scratch, words), 'ERR_AGENT_TOKEN', 6);
      const asOperator = await understudy(['point', 'list'], {
        UNDERSTUDY_STAGING: staging.url,
        UNDERSTUDY_TOKEN_FILE: out,
      });
      expectRefusal(asOperator, /the token is one of an agent/, 6);
      const again = await staging.run('server', 'token', 'other', '--out', out);
      expectRefusal(again, 'ERR_DISK_EXISTS', 6);
      expect((await staging.json<unknown[]>('server', 'list')).length).toBe(0);
    });
  });

  it('refuses a staging service of another version', async () => {
    await withScratch('version', async (scratch) => {
      const disk = attachLoop(scratch, scratch.path('disk'), 8 * MIB);
      writeFileSync(scratch.path('token'), 'any\n');
      const url = await startFakeStaging(scratch, (hello) => ({
        type: 'welcome',
        version: hello.version + 1,
        stagingVersion: '9.9.9',
        sessionId: 'fake',
        windowBytes: MIB,
        volumes: hello.volumes.map(() => ({ committed: null, syncedChunks: 0 })),
      }));
      const line = ['agent', 'run', '--staging', url, '--token-file', scratch.path('token')];
      const words = [...line, '--server', scratch.server, '--volume', disk.device];
      const ran = await tryAgent(scratch, words);
      expectRefusal(ran, 'ERR_PROTOCOL_VERSION', 6);
    });
  });

  it('on other hardware is refused until an operator admits it', async () => {
    await withScratch('hardware', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 32 * MIB);
      const volumes = [disk.device];
      const first = startAgent(scratch, staging, { volumes });
      await staging.waitForPoints(1);
      await first.stop();
      await detachAgent(scratch.server);
      const points = (await staging.points()).length;

      const machineId = scratch.path('machine-id');
      writeFileSync(machineId, `${'0123456789abcdef'.repeat(2)}\n`);
      const script = `mount --bind ${machineId} /etc/machine-id && exec "$@"`;
      const elsewhere = ['unshare', '--mount', 'bash', '-c', script, 'bash'];
      const words = [...agentWords(scratch, staging, disk.device), '--if-refused', 'exit'];
      const refused = await tryAgent(scratch, words, elsewhere);
      expectRefusal(refused, /hardware/, 6);
      expect((await staging.points()).length).toBe(points);
      expect((await staging.server(scratch.server)).pendingHardwareId).not.toBeNull();

      // Left to wait, it says so loudly, and is in as soon as it may be.
      const waiting = startAgent(scratch, staging, { volumes, wrap: elsewhere });
      const status = () => understudy(['agent', 'status', '--server', scratch.server, '--json']);
      await waitFor('the refusal', async () => (await status()).exitCode === 6, {
        timeoutMs: 120_000,
      });
      expect(JSON.parse((await status()).out).refused).toMatchObject({
        code: 'ERR_OTHER_HARDWARE',
      });
      expect(waiting.errors).toContain('staging refuses this machine');
      expect((await staging.points()).length).toBe(points);
      const admitted = await staging.run('server', 'admit', scratch.server, '--yes');
      expect(admitted.exitCode, admitted.err).toBe(0);
      await staging.waitForPoints(points + 1);
      expect((await status()).exitCode).toBe(0);
    });
  });
});

describe('staging run', () => {
  it('refuses a data directory in use', async () => {
    await withScratch('in-use', async (scratch) => {
      const staging = await Staging.start(scratch);
      const words = ['staging', 'run', '--data', staging.dataFolder, '--listen', '127.0.0.1:0'];
      expectRefusal(await understudy(words), 'ERR_DATA_IN_USE', 6);
    });
  });

  it('refuses a data directory of another version, and leaves it as it is', async () => {
    await withScratch('foreign', async (scratch) => {
      const staging = await Staging.start(scratch);
      expect(await staging.daemon.stop()).toBe(0);
      const format = join(staging.dataFolder, 'repo/format.json');
      writeFileSync(format, readFileSync(format, 'utf8').replace(/"version": *1/, '"version": 99'));
      const before = digestOfTree(staging.dataFolder);
      const words = ['staging', 'run', '--data', staging.dataFolder, '--listen', '127.0.0.1:0'];
      expectRefusal(await understudy(words), 'ERR_DATA_FORMAT', 6);
      expect(digestOfTree(staging.dataFolder)).toBe(before);
    });
  });

  it('refuses to listen beyond loopback without TLS', async () => {
    await withScratch('no-tls', async (scratch) => {
      const words = ['staging', 'run', '--data', scratch.path('data'), '--listen', '0.0.0.0:0'];
      const ran = await understudy(words);
      expect(ran.exitCode).toBe(2);
      expect(ran.err).toMatch(/tls/i);
    });
  });
});

describe('damage', () => {
  /** A data directory with a few points, its staging and agent gone; `kill` leaves the journal unsealed. */
  async function withData(
    name: string,
    options: { kill: boolean },
    then: (scratch: Scratch, dataFolder: string, disk: string) => Promise<void>,
  ): Promise<void> {
    await withScratch(name, async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 16 * MIB);
      sh(
        'dd',
        'if=/dev/urandom',
        `of=${disk.device}`,
        'bs=1M',
        'oflag=direct',
        'status=none',
        'count=8',
      );
      const agent = startAgent(scratch, staging, { volumes: [disk.device], cutInterval: '500ms' });
      await staging.waitForPoints(2);
      if (options.kill) {
        await agent.kill();
        await staging.daemon.kill();
      } else {
        await agent.stop();
        await staging.daemon.stop();
      }
      await then(scratch, staging.dataFolder, disk.device);
    });
  }

  const newestFile = (folder: string): string =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .map((name) => join(folder, name))
      .filter((path) => statSync(path).isFile())
      .sort((a, b) => statSync(b).size - statSync(a).size)[0]!;

  it('of a pack is found by repo check --read-data, and no image is made of it', async () => {
    await withData('pack', { kill: false }, async (scratch, dataFolder, disk) => {
      const pack = newestFile(join(dataFolder, 'repo/packs'));
      flipByte(pack, Math.floor(statSync(pack).size / 2));
      const damaged = digestOfTree(join(dataFolder, 'repo'));
      const offline = await understudy(['repo', 'check', '--read-data', '--repo', dataFolder]);
      expect(offline.exitCode).toBe(4);
      expect(offline.out + offline.err).toMatch(/damaged/);
      expect(digestOfTree(join(dataFolder, 'repo'))).toBe(damaged);

      const out = scratch.path('image');
      const words = ['--repo', dataFolder, '--point', 'latest', '--volume', disk, '--out', out];
      expectRefusal(await understudy(['repo', 'restore', ...words]), /DAMAGED/, 4);
      expect(() => statSync(out)).toThrow();

      const staging = await Staging.start(scratch, { dataFolder });
      const ran = await staging.run(
        'image',
        'export',
        '--point',
        'latest',
        '--volume',
        disk,
        '--out',
        out,
      );
      expectRefusal(ran, /DAMAGED/, 4);
      expect(() => statSync(out)).toThrow();
    });
  });

  it.each([
    ['a flipped bit in an acknowledged journal record', flipInTheMiddle],
    [
      'a truncated journal',
      (path: string) => truncateSync(path, Math.floor(statSync(path).size / 2)),
    ],
  ])('%s keeps staging from starting', async (_what, damage) => {
    await withData('journal', { kill: true }, async (scratch, dataFolder) => {
      const journal = newestFile(join(dataFolder, 'journal'));
      damage(journal);
      const copy = scratch.path('copy');
      cpSync(dataFolder, copy, { recursive: true });
      const words = ['staging', 'run', '--data', dataFolder, '--listen', '127.0.0.1:0'];
      expectRefusal(await understudy(words), 'ERR_JOURNAL_DAMAGED', 4);
      const parts = ['journal', 'repo'];
      for (const part of parts) {
        expect(digestOfTree(join(dataFolder, part))).toBe(digestOfTree(join(copy, part)));
      }
    });
  });
});

function flipInTheMiddle(path: string): void {
  flipByte(path, Math.floor(statSync(path).size / 2));
}

describe('an operator', () => {
  it('asking for a point or a volume that is not there is told so', async () => {
    await withScratch('not-there', async (scratch) => {
      const staging = await Staging.start(scratch);
      const disk = attachLoop(scratch, scratch.path('disk'), 8 * MIB);
      startAgent(scratch, staging, { volumes: [disk.device] });
      await staging.waitForPoints(1);
      const out = ['--out', scratch.path('image')];
      expectRefusal(await staging.run('point', 'show', 'nonsense'), 'ERR_POINT_NOT_FOUND', 5);
      const noPoint = ['image', 'export', '--point', 'nonsense', '--volume', disk.device, ...out];
      expectRefusal(await staging.run(...noPoint), 'ERR_POINT_NOT_FOUND', 5);
      const noVolume = ['image', 'export', '--point', 'latest', '--volume', '/dev/other', ...out];
      expectRefusal(await staging.run(...noVolume), 'ERR_VOLUME_NOT_FOUND', 5);
      expect(() => statSync(scratch.path('image'))).toThrow();
    });
  });

  it('is told when staging goes away', async () => {
    await withScratch('gone', async (scratch) => {
      const staging = await Staging.start(scratch);
      await staging.daemon.stop();
      await waitFor('its end', () => !staging.daemon.isRunning, { timeoutMs: 120_000 });
      expectRefusal(await staging.run('server', 'list'), 'ERR_CLI_UNREACHABLE', 3);
    });
  });
});
