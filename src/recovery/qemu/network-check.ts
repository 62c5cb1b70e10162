/**
 * Before a machine is made: is the network there that it is to join? QEMU would say so too late, and in the
 * words of its helper.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError } from '../../base/node-disk.ts';
import type { VmNetwork } from './network.ts';

export interface NetworkPlaces {
  /** The kernel's network devices. */
  readonly devices: string;
  /** What qemu-bridge-helper may join. */
  readonly bridges: string;
}

export const networkPlaces: NetworkPlaces = {
  ...{ devices: '/sys/class/net', bridges: '/etc/qemu/bridge.conf' },
};

const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_NETWORK', message);

/** ERR_LAUNCH_NETWORK. */
export function checkNetwork(network: VmNetwork | null, places = networkPlaces): void {
  if (network?.kind === 'tap') checkTap(network.name, places);
  if (network?.kind === 'bridge') checkBridge(network.name, places);
}

function checkTap(name: string, { devices }: NetworkPlaces): void {
  if (existsSync(join(devices, name, 'tun_flags'))) return;
  const how = `ip tuntap add ${name} mode tap; ip link set ${name} up`;
  throw refuse(`the staging machine has no tap device ${name}: ${how}`);
}

function checkBridge(name: string, { devices, bridges }: NetworkPlaces): void {
  const isBridge = (device: string) => existsSync(join(devices, device, 'bridge'));
  if (!isBridge(name)) {
    const known = readdirSync(devices).filter(isBridge).join(', ');
    const how = `ip link add ${name} type bridge; ip link set ${name} up`;
    const others = known === '' ? '' : `; it has ${known}`;
    throw refuse(`the staging machine has no bridge ${name}${others}: ${how}`);
  }
  const lines = readIfThere(bridges)
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  // What another file says is the helper's to read.
  const isAllowed = lines.some(
    ([word, what]) => word === 'include' || (word === 'allow' && (what === name || what === 'all')),
  );
  if (isAllowed) return;
  throw refuse(`QEMU may not join bridge ${name}: add the line "allow ${name}" to ${bridges}`);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw diskError(cause, path);
  }
}
