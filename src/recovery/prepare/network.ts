/**
 * A network configuration that works on another card: where files are bound to a card's address or name, a
 * fallback is added by which any card that nothing else is meant for asks for an address by DHCP. The files
 * are there stay, but for rules that give names to cards by their addresses, which are put aside, and
 * HWADDR of ifcfg files. What cloud-init has written is left alone: in a cloud it is written anew; elsewhere
 * it may not be, and the fallback beside it works. Wicked knows no card of any name: it gets a file for each
 * name that a first card has on QEMU and EC2. Pure.
 */
import type { Note } from './report.ts';

export interface NetworkFile {
  readonly path: string;
  readonly text: string;
}

export type NetworkChange =
  | { readonly kind: 'write'; readonly path: string; readonly text: string; readonly mode: number }
  /** The original is kept beside it. */
  | { readonly kind: 'replace'; readonly path: string; readonly text: string };

export interface NetworkPlan {
  readonly changes: readonly NetworkChange[];
  readonly notes: readonly Note[];
}

const MARK = '# Written by the boot preparation of Understudy.';

const ownPaths = {
  netplan: '/etc/netplan/99-understudy.yaml',
  networkd: '/etc/systemd/network/99-understudy.network',
  manager: '/etc/NetworkManager/system-connections/understudy.nmconnection',
  ifcfg: '/etc/sysconfig/network-scripts/ifcfg-understudy',
} as const;

const texts = {
  netplan: `${MARK}
network:
  version: 2
  ethernets:
    understudy:
      match: {name: "e*"}
      dhcp4: true
      optional: true
`,
  networkd: `${MARK}
[Match]
Name=en* eth*

[Network]
DHCP=yes
`,
  manager: `${MARK}
[connection]
id=understudy
uuid=5d4c0f0e-8a3a-4e0e-9f57-756e64657273
type=ethernet
autoconnect-priority=-100
multi-connect=3

[ipv4]
method=auto

[ipv6]
method=auto
`,
  ifcfg: `${MARK}
NAME=understudy
TYPE=Ethernet
BOOTPROTO=dhcp
ONBOOT=yes
AUTOCONNECT_PRIORITY=-100
MULTI_CONNECT=3
`,
  wicked: `${MARK}
BOOTPROTO='dhcp'
STARTMODE='hotplug'
`,
  ifupdown: `
${MARK}
auto /e*/1=understudy
iface understudy inet dhcp
`,
} as const;

const MAC = '(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}';
const fallbacks = {
  netplan: {
    path: /^\/(?:etc|lib|run)\/netplan\/.*\.yaml$/,
    bound: /macaddress:|^\s+(?:en|eth|ib)[a-z0-9]*\d[a-z0-9]*:\s*(?:#.*)?$/im,
  },
  networkd: {
    path: /^\/etc\/systemd\/network\/.*\.network$/,
    // Names without a pattern, but those of cards that are none.
    bound:
      /MACAddress\s*=|^\s*Name\s*=\s*(?!lo\b|br|bond|team|vlan|wl|wg|tun|tap|veth|dummy)[^*?[\]!\n]+$/im,
  },
  manager: {
    path: /^\/etc\/NetworkManager\/system-connections\//,
    bound: /^\s*(?:mac-address|interface-name)\s*=/im,
  },
  wicked: {
    path: /^\/etc\/sysconfig\/network\/ifcfg-(?!lo$)[^/]+$/,
    // Each is for the card that its name tells.
    bound: /^/,
  },
  ifcfg: {
    path: /^\/etc\/sysconfig\/network-scripts\/ifcfg-(?!lo$)[^/]+$/,
    bound: /^\s*(?:HWADDR|DEVICE)\s*=/im,
  },
} as const;
const kinds = ['netplan', 'networkd', 'manager', 'ifcfg'] as const;
/** With predictable names: cards behind up to eight disks of QEMU; EC2's. Without: the first. */
const wickedNames = ['eth0', 'ens5', ...[2, 3, 4, 5, 6, 7, 8, 9, 10].map((slot) => `enp0s${slot}`)];
const wickedPath = (name: string): string => `/etc/sysconfig/network/ifcfg-${name}`;
/** What a plan may add. */
export const addedNetworkFiles: readonly string[] = [
  ...[...Object.values(ownPaths), ...wickedNames.map(wickedPath)],
];
const INTERFACES = '/etc/network/interfaces';
const isInterfaces = (path: string) => path === INTERFACES || path.startsWith(`${INTERFACES}.d/`);
const boundInterfaces = new RegExp(
  `^\\s*iface\\s+(?:mac/${MAC}|(?!lo\\b|understudy\\b|br|bond|vlan|wl)[\\w.-]*\\d[\\w.-]*)\\s+inet`,
  'im',
);
const rules = /^\/etc\/udev\/rules\.d\/.*persistent-net.*\.rules$/;

export function planNetwork(files: readonly NetworkFile[], hasCloudInit: boolean): NetworkPlan {
  const changes: NetworkChange[] = [];
  const notes: Note[] = [];
  const own = files.filter(({ text, path }) => !(hasCloudInit && isCloudInits(path, text)));
  if (own.length < files.length) notes.push(note('found', '', 'made by cloud-init: left to it'));
  for (const kind of kinds) {
    const { path, bound } = fallbacks[kind];
    const isDue = files.some((each) => path.test(each.path) && bound.test(each.text));
    if (!isDue || files.some((each) => each.path === ownPaths[kind])) continue;
    const mode = kind === 'ifcfg' || kind === 'networkd' ? 0o644 : 0o600;
    changes.push({ kind: 'write', path: ownPaths[kind], text: texts[kind], mode });
    notes.push(note('changed', ownPaths[kind], 'a fallback: DHCP on a card of any name'));
  }
  changes.push(...wickedFallbacks(files));
  if (changes.some(({ path }) => fallbacks.wicked.path.test(path))) {
    const text = 'a fallback: DHCP on a first card, by the names that it has on QEMU and EC2';
    for (const { path } of changes.filter((each) => fallbacks.wicked.path.test(each.path))) {
      notes.push(note('changed', path, text));
    }
  }
  for (const file of own) {
    const change = changeOfFile(file, own);
    if (change === null) continue;
    changes.push({ kind: 'replace', path: file.path, text: change.text });
    notes.push(note('changed', file.path, change.done));
  }
  if (files.length === 0)
    notes.push(note('warning', '', 'no configuration of a network was found'));
  return { changes, notes };
}

/** None where one of them is there: it was added before, or is the machine's own and fits. */
function wickedFallbacks(files: readonly NetworkFile[]): NetworkChange[] {
  const isThere = (wanted: string) => files.some(({ path }) => path === wanted);
  if (!files.some(({ path }) => fallbacks.wicked.path.test(path))) return [];
  return wickedNames
    .map(wickedPath)
    .filter((path) => !isThere(path))
    .map((path) => ({ kind: 'write', path, text: texts.wicked, mode: 0o644 }));
}

const note = (kind: Note['kind'], path: string, text: string): Note => ({
  ...{ kind, about: 'network', path, text },
});

const isCloudInits = (path: string, text: string): boolean =>
  /50-cloud-init/.test(path) || /^#.*(?:cloud-init|datasource)/im.test(text.slice(0, 400));

function changeOfFile({ path, text }: NetworkFile, all: readonly NetworkFile[]) {
  if (rules.test(path)) return withoutRules(text);
  if (fallbacks.ifcfg.path.test(path) && /^\s*HWADDR\s*=/m.test(text)) {
    const kept = text.replace(/^(\s*HWADDR\s*=)/gm, '#$1');
    return { text: kept, done: 'HWADDR no longer binds it to one card' };
  }
  if (path !== INTERFACES) return null;
  const isBound = all.some((each) => isInterfaces(each.path) && boundInterfaces.test(each.text));
  if (!isBound || text.includes(MARK)) return null;
  return {
    text: `${text.trimEnd()}\n${texts.ifupdown}`,
    done: 'a fallback: DHCP on the first card of any name',
  };
}

function withoutRules(text: string) {
  const lines = text.split('\n');
  const isActive = (line: string) => line.trim() !== '' && !line.trim().startsWith('#');
  if (!lines.some(isActive)) return null;
  const kept = lines.map((line) => (isActive(line) ? `#${line}` : line)).join('\n');
  return { text: kept, done: 'names by the addresses of cards are given up' };
}

/** Where such files may lie. */
export const networkFolders: readonly string[] = [
  '/etc/netplan',
  '/etc/systemd/network',
  '/etc/NetworkManager/system-connections',
  '/etc/sysconfig/network',
  '/etc/sysconfig/network-scripts',
  '/etc/network/interfaces.d',
  '/etc/udev/rules.d',
];
export const networkFiles: readonly string[] = [INTERFACES];
export const isNetworkFile = (path: string): boolean =>
  Object.values(fallbacks).some((each) => each.path.test(path)) ||
  isInterfaces(path) ||
  rules.test(path);
