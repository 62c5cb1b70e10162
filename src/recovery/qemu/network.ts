/**
 * The network of a virtual machine, from the words of its options to those of QEMU. Pure.
 *
 *   isolated     a card that leads nowhere: neither this host nor what is beyond it is reached
 *   user         reaches out through this host's own connections (also what listens on its loopback, at
 *                10.0.2.2); reached only by forwards
 *   bridge:NAME  on that bridge, by qemu-bridge-helper (/etc/qemu/bridge.conf must allow it)
 *   tap:NAME     on a tap device that is there already
 *   none         no card
 */
import { UnderstudyError } from '../../base/errors.ts';

export type VmNetwork =
  | {
      readonly kind: 'user';
      readonly isRestricted: boolean;
      readonly forwards: readonly PortForward[];
    }
  | { readonly kind: 'bridge' | 'tap'; readonly name: string };

export interface PortForward {
  /** Where this host listens. */
  readonly host: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

/** A network device's name has 15 bytes at most. */
export const NETWORK = /^(?:isolated|user|none|(?:bridge|tap):[A-Za-z0-9_.-]{1,15})$/;
export const FORWARDS = /^[0-9A-Za-z.:[\]-]+(?:,[0-9A-Za-z.:[\]-]+)*$/;
const LOOPBACK = '127.0.0.1';
const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_OPTIONS', message);

/** "[ADDRESS:]HOSTPORT:GUESTPORT", several with commas between. ERR_LAUNCH_OPTIONS. */
export function parseForwards(text: string): PortForward[] {
  return text.split(',').map((word) => {
    const [, address = LOOPBACK, host, guest] =
      /^(?:(\d+\.\d+\.\d+\.\d+):)?(\d{1,5}):(\d{1,5})$/.exec(word) ?? [];
    const [hostPort, guestPort] = [Number(host), Number(guest)];
    if (!isPort(hostPort) || !isPort(guestPort)) {
      throw refuse(`\`forward\` is [ADDRESS:]HOSTPORT:GUESTPORT, not "${word}"`);
    }
    return { host: address, hostPort, guestPort };
  });
}

const isPort = (port: number): boolean => port >= 1 && port <= 65_535;

/** Null: no card. ERR_LAUNCH_OPTIONS where forwards do not go with the network. */
export function networkOf(word: string, forwards: readonly PortForward[]): VmNetwork | null {
  if (word === 'user' || word === 'isolated') {
    return { kind: 'user', isRestricted: word === 'isolated', forwards };
  }
  if (forwards.length > 0)
    throw refuse(`\`forward\` needs \`network\` user or isolated, not ${word}`);
  if (word === 'none') return null;
  const [kind, name] = word.split(':');
  return { kind: kind as 'bridge' | 'tap', name: name! };
}

function backendOf(network: VmNetwork): string {
  if (network.kind !== 'user') {
    const { kind, name } = network;
    return kind === 'bridge'
      ? `bridge,id=net0,br=${name}`
      : `tap,id=net0,ifname=${name},script=no,downscript=no`;
  }
  const forwards = network.forwards.map(
    ({ host, hostPort, guestPort }) => `,hostfwd=tcp:${host}:${hostPort}-:${guestPort}`,
  );
  return `user,id=net0${network.isRestricted ? ',restrict=on' : ''}${forwards.join('')}`;
}

export const cards = { virtio: 'virtio-net-pci', e1000e: 'e1000e' } as const;

export function networkWords(
  network: VmNetwork | null,
  card: keyof typeof cards,
  mac: string,
): string[] {
  if (network === null) return ['-nic', 'none'];
  const device = `${cards[card]},netdev=net0,mac=${mac},romfile=`;
  return ['-netdev', backendOf(network), '-device', device];
}
