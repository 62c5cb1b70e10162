/** Options of a launch: the names of the API on one side, those of the command line on the other. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { allCommands } from '../../src/cli/command.ts';
import { commandGroups } from '../../src/cli/commands/index.ts';
import { createExportLauncher } from '../../src/recovery/export-launcher.ts';
import { checkNetwork } from '../../src/recovery/qemu/network-check.ts';
import { qemuOptions } from '../../src/recovery/qemu/options.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import type { LaunchRequest } from '../../src/staging/jobs/jobs.ts';
import { runLine } from './support/command-line.ts';
import { fakeBackend, fakeJob, fakePoint } from './support/fake-backend.ts';

const TOKEN = 'secret';
let server: Server;
let folder: string;
let environment: Record<string, string>;
let asked: LaunchRequest[];

/** As the launchers do, before they look at the machine. */
async function start(request: LaunchRequest) {
  asked.push(request);
  const { kind = 'drill', target, options } = request;
  if (target === 'qemu') qemuOptions(options, kind);
  else {
    const nothing = () => Promise.reject(new Error());
    await createExportLauncher().check(options, fakePoint('p'), nothing, kind);
  }
  return fakeJob();
}

beforeEach(async () => {
  asked = [];
  const base = fakeBackend(Buffer.alloc(1));
  const backend = { ...base, jobs: { ...base.jobs, start } };
  server = createServer(createApiHandler(backend, TOKEN));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  folder = mkdtempSync(join(tmpdir(), 'understudy-fields-'));
  writeFileSync(join(folder, 'token'), TOKEN);
  environment = {
    UNDERSTUDY_STAGING: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    UNDERSTUDY_TOKEN_FILE: join(folder, 'token'),
  };
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

const drill = (...words: string[]) =>
  runLine(['drill', 'start', '--server', 'web1', ...words], environment);

describe('options of a launch', () => {
  it('go to the service by its names, and only those that were given', async () => {
    await drill('--memory', '4GiB', '--check', '--forward', '1:2', '--forward', '3:4');
    await drill('--stand-alone', 'yes', '--copy-rate', '1MiB', '--timeout', '5m', '--keep-running');
    await drill('--probe', 'serial:', '--probe-password-file', 'web1', '--probe-run', 'true');
    expect(asked.map(({ options }) => options)).toEqual([
      { memoryBytes: 2 ** 32, check: true, forward: '1:2,3:4' },
      { standAlone: true, copyRateBytes: 2 ** 20, timeoutMs: 300_000, keepRunning: true },
      { probe: 'serial:', probePasswordFile: 'web1', probeRun: 'true' },
    ]);
  });

  it.each([
    [['--memory', '1MiB'], '--memory must be from 128.0 MiB to 1.00 TiB'],
    [['--timeout', '5ms'], '--timeout must be from 1.0 s to 1d'],
    [['--cpus', '0'], '--cpus must be a whole number from 1 to 255'],
    [['--probe', 'ping'], '--probe must be console, serial:'],
    [['--probe', 'ssh:'], 'a probe by ssh needs --probe-run'],
    [['--probe', 'ssh:', '--probe-run', 'x'], 'a probe by ssh needs --probe-key'],
    [['--probe-key', 'k'], '--probe-key is for probes by ssh'],
    [['--probe', 'tcp:22', '--probe-password-file', 'k'], '--probe-password-file is for probes by'],
    [['--probe', 'serial:op'], 'a probe by serial needs --probe-run'],
    [
      ['--probe', 'serial:op', '--probe-run', 'a\nb'],
      '--probe-run of a probe by serial is one line',
    ],
    [['--probe', 'tcp:22', '--network', 'none'], '--probe tcp:22 needs --network isolated or user'],
    [['--forward', '22:22', '--network', 'none'], '--forward needs --network user or isolated'],
    [['--target', 'export', '--memory', '1GiB'], 'no option --memory; it has --format'],
  ])('%j are refused in the words that were typed', async (words, message) => {
    const { exitCode, err } = await drill(...words);
    expect(err).toContain(message);
    expect(err).toMatch(/\(ERR_LAUNCH_OPTIONS\)\n/);
    expect(err).not.toMatch(/`|[a-z](?:Bytes|Ms|Key|Run|File)\b/);
    expect(exitCode).toBe(2);
  });

  it('are refused over REST by its own names', async () => {
    const response = await fetch(`${environment.UNDERSTUDY_STAGING}/v1/drills`, {
      ...{ method: 'POST', headers: { authorization: `Bearer ${TOKEN}` } },
      body: JSON.stringify({ point: 'p', options: { memoryBytes: 1 } }),
    });
    const { error } = (await response.json()) as { error: { message: string } };
    expect(error.message).toMatch(/^`memoryBytes` must be from 128/);
  });

  it('of the command line are all known to a target', () => {
    const fields = commandGroups
      .flatMap(allCommands)
      .flatMap(({ options }) => options.flatMap(({ field }) => field ?? []));
    expect(fields).toContain('probePasswordFile');
    for (const field of new Set(fields.filter((each) => each !== 'format'))) {
      expect(() => qemuOptions({ [field]: {} }, 'drill')).toThrow(`\`${field}\` `);
    }
  });
});

describe('a network that is to be joined', () => {
  const bridge = { kind: 'bridge', name: 'br0' } as const;
  const places = () => ({ devices: join(folder, 'net'), bridges: join(folder, 'bridge.conf') });
  const make = (...paths: string[]) => {
    for (const path of paths) mkdirSync(join(folder, 'net', path), { recursive: true });
  };
  const check = (network: Parameters<typeof checkNetwork>[0]) => checkNetwork(network, places());

  it('must be there; what to do next is told', () => {
    make('eth0', 'virbr0/bridge');
    const missing = 'no bridge br0; it has virbr0: ip link add br0 type bridge; ip link set br0 up';
    expect(() => check(bridge)).toThrow(missing);
    make('br0/bridge');
    expect(() => check(bridge)).toThrow('add the line "allow br0"');
    for (const line of ['allow br1', '# allow br0', 'deny all']) {
      writeFileSync(places().bridges, `${line}\n`);
      expect(() => check(bridge)).toThrow('QEMU may not join bridge br0');
    }
    for (const line of ['allow br0', 'allow all', 'include /etc/qemu/alice.conf']) {
      writeFileSync(places().bridges, `# ours\n${line}\n`);
      check(bridge);
    }
    const tap = { kind: 'tap', name: 'eth0' } as const;
    expect(() => check(tap)).toThrow('no tap device eth0: ip tuntap add eth0');
    make('tap0/tun_flags');
    check({ ...tap, name: 'tap0' });
    check(null);
  });

  it('is looked for on this machine, before anything is made', () => {
    expect(() => checkNetwork({ ...bridge, name: 'no-such-bridge' })).toThrow('no bridge no-such');
  });
});
