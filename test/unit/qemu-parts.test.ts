/** The pure parts of the local virtual machine: command lines, options, the console's verdict, probes. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { exportName } from '../../src/recovery/export-launcher.ts';
import { qemuWords, type VmSpec } from '../../src/recovery/qemu/command.ts';
import { judgeConsole } from '../../src/recovery/qemu/console-state.ts';
import { checkMemory } from '../../src/recovery/qemu/launcher.ts';
import { identityOf } from '../../src/recovery/qemu/machine-identity.ts';
import { networkOf, parseForwards } from '../../src/recovery/qemu/network.ts';
import { probeOf, qemuOptions } from '../../src/recovery/qemu/options.ts';
import { claimPort, isEstablished } from '../../src/recovery/qemu/probe.ts';
import { sshWords } from '../../src/recovery/qemu/ssh-probe.ts';
import { vncOf } from '../../src/recovery/qemu/vm.ts';

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof UnderstudyError) return error.code;
    throw error;
  }
  return 'none';
};

describe('the memory of a machine', () => {
  it('is no more than this machine has', () => {
    expect(() => checkMemory(2 ** 30, 2 ** 30)).not.toThrow();
    expect(() => checkMemory(2 ** 40, 24 * 2 ** 30)).toThrow(
      'memory of 1.00 TiB is wanted, and this machine has 24.0 GiB',
    );
  });
});

const spec: VmSpec = {
  name: 'understudy-x',
  identity: identityOf('x'),
  runFolder: '/run/x',
  consolePath: '/data/a,b/console.log',
  accelerator: 'tcg',
  memoryBytes: 2 ** 30,
  cpus: 2,
  bus: 'virtio',
  firmware: { mode: 'bios' },
  disks: [
    { socketPath: '/run/x/disk0.sock', overlayPath: '/w/disk0.qcow2', sectorBytes: 512 },
    { socketPath: '/run/x/disk1.sock', overlayPath: '/w/disk1.qcow2', sectorBytes: 4096 },
  ],
  bootDisk: 1,
  isDurable: false,
  isCopied: false,
  network: {
    ...{ kind: 'user', isRestricted: true },
    forwards: [{ host: '127.0.0.1', hostPort: 4000, guestPort: 22 }],
  },
  card: 'virtio',
  vnc: null,
  isRebootAnEnd: false,
};

describe("QEMU's command line", () => {
  const words = qemuWords(spec).join(' ');

  it('tells the format of every file, and gives every disk an overlay', () => {
    const nodes = qemuWords(spec)
      .filter((_, index, all) => all[index - 1] === '-blockdev')
      .map((text) => JSON.parse(text) as Record<string, unknown>);
    expect(nodes.map(({ driver }) => driver)).toEqual([
      ...['raw', 'qcow2', 'copy-on-read', 'raw', 'qcow2', 'copy-on-read'],
    ]);
    expect(nodes[0]).toMatchObject({ 'read-only': true, file: { driver: 'nbd' } });
    expect(nodes[1]).toMatchObject({ backing: 'point0', file: { filename: '/w/disk0.qcow2' } });
    expect(words).not.toMatch(/-(drive|hd[ab]|cdrom) /);
  });

  it('boots from the disk that boots, and keeps the sectors of the source', () => {
    const devices = qemuWords(spec).filter((word) => word.startsWith('virtio-blk-pci'));
    expect(devices[0]).toBe('virtio-blk-pci,drive=top0');
    expect(devices[1]).toContain('drive=top1,bootindex=1,logical_block_size=4096');
  });

  it('isolates the network, or has none', () => {
    expect(words).toContain('user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:4000-:22');
    expect(qemuWords({ ...spec, network: null }).join(' ')).toContain('-nic none');
  });

  it('of a failover flushes what the guest syncs, and lets no full disk reach it', () => {
    const failover = { ...spec, isDurable: true, isCopied: true };
    expect(words).toContain('no-flush');
    expect(words).not.toContain('error=');
    const text = qemuWords(failover).join(' ');
    expect(text).not.toContain('no-flush');
    expect(text.match(/werror=stop,rerror=report/g)).toHaveLength(2);
    // Copied in the background: what is read need not be kept, and finds no full disk.
    expect(text).not.toContain('copy-on-read');
    expect(text).toContain('virtio-blk-pci,drive=disk0');
    expect(qemuWords({ ...failover, bus: 'nvme' }).join(' ')).not.toContain('error=');
    // As long as the image server asks on, the machine waits for the image server.
    expect(text).toContain('"reconnect-delay":31536000');
  });

  it('of a disk that stands alone opens nothing else, whatever its file may name', () => {
    const disk = { socketPath: null, overlayPath: '/w/disk0.qcow2', sectorBytes: 512 };
    const text = qemuWords({ ...spec, disks: [disk], bootDisk: 0 }).join(' ');
    expect(text).toContain('"backing":null');
    expect(text).not.toContain('nbd');
  });

  it('joins a network, by a card of one kind or another', () => {
    const on = (word: string, card: VmSpec['card'] = 'virtio') =>
      qemuWords({ ...spec, card, network: networkOf(word, []) }).join(' ');
    expect(on('user')).toContain('-netdev user,id=net0 -device virtio-net-pci,netdev=net0,mac=52:');
    expect(on('isolated', 'e1000e')).toContain('user,id=net0,restrict=on -device e1000e,');
    expect(on('bridge:br0')).toMatch(/spawn=allow.* bridge,id=net0,br=br0 /);
    expect(on('tap:tap7')).toMatch(/spawn=deny.* tap,id=net0,ifname=tap7,script=no,downscript=no /);
  });

  it('doubles commas in paths, and takes NVMe, KVM, UEFI and VNC', () => {
    expect(words).toContain('logfile=/data/a,,b/console.log');
    const other = qemuWords({
      ...spec,
      bus: 'nvme',
      accelerator: 'kvm',
      firmware: { mode: 'uefi', codePath: '/code.fd', variablesPath: '/vars.fd' },
      vnc: { host: '::1', port: 5903 },
    }).join(' ');
    expect(other).toContain('nvme,serial=understudy1,drive=top1,bootindex=1');
    expect(other).toContain('-accel kvm -cpu host');
    expect(other).toContain('q35,pflash0=firmware,pflash1=variables');
    expect(other).toContain('-vnc [::1]:3');
  });
});

describe('the console', () => {
  const E = String.fromCharCode(27);
  it.each([
    ['\r\nDebian GNU/Linux 12 web1 ttyS0\r\n\r\nweb1 login: ', 'login', 'web1 login:'],
    [`${E}[32mweb1 login:${E}[0m `, 'login', 'web1 login:'],
    ['localhost login:\n', 'login', 'localhost login:'],
    ['\nweb1 login: [    3.264999] IPv6: ADDRCONF: eth0: link ready\n', 'login', 'web1 login:'],
    ['ttyS0\n\nweb1 login: db: 5 rows\ndb: 5 rows\n', 'login', 'web1 login:'],
    ['Debian 12 web1 ttyS0\n\ndb: 5 rows\nweb1 login: db: 5 rows\n', 'login', 'web1 login:'],
    ['Debian 12 web1 ttyS0\n\ndb: 5 rows\nweb2 login: db: 5 rows\n', 'waiting', ''],
    ['Debian 12 web1 ttyS0\n\nLast login: Fri Nov 20 on ttyS0\n', 'waiting', ''],
    // A title, a bell, and CSI in one byte: what is kept of a verdict acts on no terminal.
    [`${E}]0;t\x07\x9b2Jweb1 login:\n`, 'login', '0;t  2Jweb1 login:'],
    ['[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs', 'stuck', 'Kernel panic'],
    ['ALERT!  UUID=12 does not exist.  Dropping to a shell!', 'stuck', 'ALERT!'],
    ['Gave up waiting for root file system device.', 'stuck', 'Gave up'],
    ['You are in emergency mode. After logging in', 'stuck', 'You are in emergency'],
    ['error: no such device: 12.\nEntering rescue mode...\ngrub rescue> ', 'stuck', 'grub rescue>'],
    ['BdsDxe: loading Boot0003\nUEFI Interactive Shell v2.2', 'stuck', 'UEFI Interactive'],
    ['Starting login service\n[  OK  ] Started systemd-logind', 'waiting', ''],
    ['Last login: Fri', 'waiting', ''],
    ['', 'waiting', ''],
  ])('%j says %s', (text, kind, line) => {
    const verdict = judgeConsole(text);
    expect(verdict.kind).toBe(kind);
    if (verdict.kind !== 'waiting') expect(verdict.line).toContain(line);
  });

  // 64 KiB that were looked through from each of their places would not end within the time of a test.
  it.each([' ', 'a.', '\n\n', 'x ttyS0\n', 'login', ' login'])('of %j alone is judged', (part) => {
    const text = part.repeat(65_536 / part.length);
    expect(judgeConsole(text).kind).toBe('waiting');
  });
});

describe('options of a machine', () => {
  it('have defaults; a probe means a check', () => {
    const common = {
      ...{ memoryBytes: 2 ** 31, cpus: 2, bus: 'virtio', firmware: 'auto', accel: 'auto' },
      ...{ check: false, timeoutMs: 600_000, keepRunning: false, card: 'virtio', copyRateBytes: 0 },
      ...{ prepare: 'auto', agent: 'auto', priority: 'normal' },
    };
    const drill = { ...common, network: 'isolated', standAlone: false };
    expect(qemuOptions({}, 'drill')).toEqual(drill);
    expect(qemuOptions({}, 'failover')).toEqual({ ...common, network: 'user', standAlone: true });
    const probed = qemuOptions({ probe: 'tcp:22' }, 'drill');
    expect(probed).toMatchObject({ check: true, probe: 'tcp:22' });
  });

  it('forward ports to this machine alone, or to an address of it', () => {
    expect(parseForwards('2222:22,0.0.0.0:443:8443')).toEqual([
      { host: '127.0.0.1', hostPort: 2222, guestPort: 22 },
      { host: '0.0.0.0', hostPort: 443, guestPort: 8443 },
    ]);
  });

  it.each([
    [{ cpus: 0 }],
    [{ cpus: 1.5 }],
    [{ memoryBytes: '2GiB' }],
    [{ bus: 'scsi' }],
    [{ check: 'yes' }],
    [{ colour: 'blue' }],
    [{ probe: 'ping' }],
    [{ probe: 'tcp:0' }],
    [{ probe: 'tcp:70000' }],
    [{ probe: 'tcp:22', network: 'none' }],
    [{ probe: 'http:/', network: 'bridge:br0' }],
    [{ probe: 'ssh:' }],
    [{ probe: 'ssh:', probeKey: 'k' }],
    [{ probe: 'ssh:-oX@', probeKey: 'k', probeRun: 'true' }],
    [{ probe: 'ssh:', probeKey: '../token', probeRun: 'true' }],
    [{ probe: 'tcp:22', probeKey: 'k', probeRun: 'true' }],
    [{ probeRun: 'true' }],
    [{ network: 'bridge:' }],
    [{ network: 'tap:x,script=/bin/sh' }],
    [{ forward: '22' }],
    [{ forward: '70000:22' }],
    [{ forward: '22:22,hostfwd=tcp::1-:1' }],
    [{ forward: '22:22', network: 'none' }],
    [{ forward: '22:22', network: 'tap:tap0' }],
    [{ card: 'ne2k' }],
    [{ copyRateBytes: -1 }],
    [{ vnc: ':1' }],
    [{ vnc: '127.0.0.1:5901,password=on' }],
    [{ __proto__: null, constructor: 1 }],
  ])('%j are refused', (given) => {
    for (const kind of ['drill', 'failover'] as const) {
      expect(codeOf(() => qemuOptions(given, kind))).toBe('ERR_LAUNCH_OPTIONS');
    }
  });

  it('read probes and addresses', () => {
    expect(probeOf({ probe: 'http:/health?x=1' })).toEqual({
      kind: 'http',
      port: 80,
      path: '/health?x=1',
    });
    expect(probeOf({ probe: 'http:8080/' })).toMatchObject({ port: 8080 });
    expect(probeOf({ probe: 'tcp:22' })).toEqual({ kind: 'tcp', port: 22 });
    const ssh = { probeKey: 'k', probeRun: 'systemctl is-system-running' };
    expect(probeOf({ ...ssh, probe: 'ssh:' })).toMatchObject({ user: 'root', port: 22, key: 'k' });
    expect(probeOf({ ...ssh, probe: 'ssh:admin@2222' })).toMatchObject({
      user: 'admin',
      port: 2222,
    });
    expect(vncOf('127.0.0.1:5901')).toEqual({ host: '127.0.0.1', port: 5901 });
    expect(vncOf('[::1]:5901')).toEqual({ host: '::1', port: 5901 });
  });
});

describe('the identity of a machine', () => {
  it('is its own, and the same again for the same job', () => {
    const one = identityOf('20261121T153512Z-3fa9c1d2');
    expect(identityOf('20261121T153512Z-3fa9c1d2')).toEqual(one);
    expect(one.uuid).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect(one.mac).toMatch(/^52:54:00(?::[0-9a-f]{2}){3}$/);
    const other = identityOf('20261121T153512Z-3fa9c1d3');
    for (const key of ['uuid', 'serialNumber', 'mac'] as const) {
      expect(other[key]).not.toBe(one[key]);
    }
    const words = qemuWords({ ...spec, identity: one }).join(' ');
    expect(words).toContain(`-uuid ${one.uuid} -smbios type=1,serial=${one.serialNumber}`);
  });
});

describe('probes', () => {
  it("read QEMU's table of connections, not the connection that QEMU itself takes", () => {
    const head =
      '  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n';
    const line = (state: string, port: number) =>
      `  TCP[${state}]   15       127.0.0.1 18080      10.0.2.15    ${port}     0     0\n`;
    expect(isEstablished(head + line('HOST_FORWARD', 22) + line('ESTABLISHED', 22), 22)).toBe(true);
    expect(isEstablished(head + line('SYN_SENT', 22), 22)).toBe(false);
    expect(isEstablished(head + line('ESTABLISHED', 80), 22)).toBe(false);
  });

  it('by ssh ask nothing, know no host, take nothing of the caller, and end the options first', () => {
    const signal = new AbortController().signal;
    const words = sshWords({ user: 'root', run: '-o x', keyPath: '/k', hostPort: 40_000, signal });
    expect(words.slice(-3)).toEqual(['127.0.0.1', '--', '-o x']);
    for (const word of ['-F', 'BatchMode=yes', 'UserKnownHostsFile=/dev/null']) {
      expect(words).toContain(word);
    }
  });

  it('claim a port, and say which is taken', async () => {
    const port = await claimPort('127.0.0.1', 0);
    expect(await claimPort('127.0.0.1', port)).toBe(port);
    await expect(claimPort('192.0.2.1', port)).rejects.toMatchObject({ code: 'ERR_LAUNCH_PORT' });
  });
});

it('exported files have names of their own', () => {
  expect(exportName(0, '/dev/disk/by-id/a b', 'raw')).toBe('0-dev-disk-by-id-a-b.raw');
  expect(exportName(1, '/../..', 'qcow2')).toBe('1-..-...qcow2');
});
