/**
 * Who this machine is: the server's name, and a digest of what tells the hardware from its clones (the
 * firmware's UUID, the machine id). A recovery instance has the same disks but another digest, so it is
 * not taken for the server that it stands in for.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { UnderstudyError } from '../base/errors.ts';
import { isServerId } from '../model/replication.ts';
import type { AgentIdentity } from './ports.ts';

const sources = [
  '/sys/class/dmi/id/product_uuid',
  '/sys/class/dmi/id/product_serial',
  '/sys/class/dmi/id/board_serial',
  '/sys/firmware/devicetree/base/serial-number',
  '/etc/machine-id',
];

/** Throws ERR_AGENT_NAME. */
export function checkServerName(name: string): string {
  if (isServerId(name)) return name;
  throw new UnderstudyError('ERR_AGENT_NAME', `not a server name: "${name}"`);
}

/**
 * What the machine says of itself in clear, so that staging can tell whose it is: the firmware's UUID,
 * and on EC2 the instance's id. Lower case. `root`: for tests.
 */
export function readMachineWords(root = ''): string[] {
  const read = (name: string) => readOptional(`${root}/sys/class/dmi/id/${name}`).toLowerCase();
  const uuid = read('product_uuid');
  const tag = read('board_asset_tag');
  return [
    ...(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid) ? [uuid] : []),
    ...(/^i-[0-9a-f]{8,17}$/.test(tag) ? [tag] : []),
  ];
}

export function readIdentity(server: string, agentVersion: string): AgentIdentity {
  const found = sources.map((path) => `${path}=${readOptional(path)}`);
  const isKnown = found.some((line) => !line.endsWith('='));
  const basis = isKnown ? found : [`hostname=${hostname()}`];
  return {
    server: checkServerName(server),
    hardwareId: createHash('sha256').update(basis.join('\n')).digest('hex'),
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    agentVersion,
  };
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8').replaceAll('\0', '').trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EPERM') return '';
    throw error;
  }
}
