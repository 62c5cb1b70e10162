/** What the doctor finds, case by case: each code is found where it should be, and not on a good machine. */
import { describe, expect, it } from 'vitest';
import { doctorCatalogue } from '../../src/model/doctor/catalogue.ts';
import { beneath, disksBeneath, isHardwareName } from '../../src/model/doctor/devices.ts';
import { examine } from '../../src/model/doctor/examine.ts';
import type { MachineFacts } from '../../src/model/doctor/facts.ts';
import { severities } from '../../src/model/machine.ts';
import { cases, net, second, uefi } from './support/doctor-cases.ts';
import {
  all,
  device,
  good,
  grub,
  kernel,
  mount,
  row,
  volume,
  withImage,
} from './support/good-machine.ts';

const findingsOf = (facts: Partial<MachineFacts>) => examine({ ...good, ...facts }).findings;

describe('what the doctor finds', () => {
  it('is nothing but "fine" on a good machine', () => {
    const findings = findingsOf({});
    expect(findings.filter(({ severity }) => severity !== 'fine')).toEqual([]);
    expect(findings.map(({ code }) => code)).toEqual([
      ...['root-found', 'boot-chain', 'initramfs-drivers', 'fstab-names'],
      ...['network-portable', 'cloud-init', 'tracker-ready'],
    ]);
    expect(findingsOf(uefi).filter(({ severity }) => severity !== 'fine')).toEqual([]);
  });

  it.each(cases)('is %s (%s): %s', (code, severity, _what, facts) => {
    const own = findingsOf(facts).filter((finding) => finding.code === code);
    expect(own.map((finding) => finding.severity)).toContain(severity);
    for (const { seen, action } of own) {
      expect(seen).not.toBe('');
      expect(action).toBe(doctorCatalogue[code].action);
    }
  });

  it('is each code of the catalogue', () => {
    const bad = new Set(cases.map(([code]) => code));
    const fine = findingsOf({}).map(({ code }) => code);
    expect([...bad, ...fine].sort()).toEqual(Object.keys(doctorCatalogue).sort());
  });

  it('says what to do wherever something is to be done', () => {
    for (const { severity, action } of Object.values(doctorCatalogue)) {
      expect(action === '').toBe(severity === 'fine');
      expect(severities).toContain(severity);
    }
  });
});

describe('what it does not blame', () => {
  const codes = (facts: Partial<MachineFacts>) => findingsOf(facts).map(({ code }) => code);

  it('names that travel: UUID, label, LVM, md', () => {
    for (const root of [
      'UUID=a',
      'LABEL=r',
      '/dev/mapper/vg-root',
      '/dev/vg/root',
      '/dev/md0',
      'PARTUUID=1-02',
    ]) {
      expect(codes({ loader: [grub(root)] })).not.toContain('root-name');
      expect(isHardwareName(root)).toBe(false);
    }
  });

  it('drivers that are built in, without an initramfs', () => {
    const builtIn = new Set([...all, 'ext4']);
    const facts = withImage({ state: 'missing', path: '', modules: new Set() }, { builtIn });
    expect(findingsOf(facts).filter(({ severity }) => severity !== 'fine')).toEqual([]);
  });

  it('swap in memory and on loops, snaps, the DVD', () => {
    const devices = [
      ...good.devices,
      device('zram0', { kind: 'memory' }),
      device('loop0', { kind: 'loop' }),
      device('sr0', { kind: 'optical' }),
    ];
    const mounts = [
      ...good.mounts,
      mount('/snap/a', ['loop0'], 'squashfs'),
      mount('/media', ['sr0']),
    ];
    const facts = { devices, mounts, swaps: ['zram0'] };
    expect(findingsOf(facts).filter(({ severity }) => severity !== 'fine')).toEqual([]);
  });

  it('network files that cloud-init writes anew, unless it may not', () => {
    const file = {
      path: '/etc/netplan/50-cloud-init.yaml',
      text: 'network:\n  ethernets:\n    ens3:\n      dhcp4: true\n',
    };
    expect(codes({ network: [file] })).toContain('network-portable');
    expect(codes({ network: [file], hasCloudInit: false })).toContain('network-name');
    const disabled = {
      path: '/etc/cloud/cloud.cfg.d/99-disable-network-config.cfg',
      text: 'network: {config: disabled}\n',
    };
    expect(codes({ network: [file, disabled] })).toContain('network-name');
  });

  it('a loader where the firmware starts the kernel itself', () => {
    const path = '/efi/EFI/Linux/a.efi';
    expect(codes({ loader: [], kernels: [{ ...kernel, path }] })).not.toContain('loader-missing');
  });

  it('names in netplan that are labels of a match', () => {
    const text = 'network:\n  ethernets:\n    eth0:\n      match: {driver: "virtio*"}\n';
    expect(codes(net('/etc/netplan/a.yaml', text))).toContain('network-portable');
  });

  it('patterns and bridges', () => {
    expect(codes(net('/etc/systemd/network/a.network', '[Match]\nName=en*\n'))).toContain(
      'network-portable',
    );
    expect(codes(net('/etc/network/interfaces', 'iface br0 inet dhcp\n'))).toContain(
      'network-portable',
    );
  });

  it('a boot from a mirror whose halves are both replicated', () => {
    const facts: Partial<MachineFacts> = {
      devices: [
        ...good.devices,
        ...second,
        device('md0', { kind: 'raid', slaves: ['vda2', 'vdb1'] }),
      ],
      mounts: [mount('/', ['md0'])],
      fstab: [row('UUID=a', '/', 'ext4', '', 'md0')],
      volumes: [...good.volumes!, volume('vdb')],
    };
    expect(findingsOf(facts).filter(({ severity }) => severity !== 'fine')).toEqual([]);
  });
});

describe('devices', () => {
  it('end where links loop', () => {
    const devices = [device('dm-0', { slaves: ['dm-1'] }), device('dm-1', { slaves: ['dm-0'] })];
    expect(beneath({ devices }, 'dm-0').map(({ name }) => name)).toEqual(['dm-0', 'dm-1']);
    expect(disksBeneath({ devices }, ['dm-0'])).toEqual([]);
  });
});
