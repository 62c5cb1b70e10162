/**
 * Network configuration that fits only this machine: bound to a card's address or to an interface's name.
 * One table of patterns per kind of file. What cloud-init writes it writes anew elsewhere. Pure.
 */
import type { Finding } from '../machine.ts';
import { found } from './catalogue.ts';
import type { MachineFacts, TextFile } from './facts.ts';

interface Format {
  readonly path: RegExp;
  /** Binds to the hardware address; group 1 is shown. */
  readonly mac: RegExp;
  /** Binds to a name; group 1 is the name. */
  readonly name: RegExp;
  /** Where it is there, names are only labels. */
  readonly label?: RegExp;
  /** Sets an address by hand. */
  readonly fixed: RegExp;
}
const never = /(?!)/g;
const MAC = '((?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2})';

const formats: readonly Format[] = [
  {
    path: /\/etc\/netplan\//,
    mac: new RegExp(`^\\s*macaddress:\\s*["']?${MAC}`, 'gim'),
    name: /^\s+((?:en|eth|ib|wl)[a-z0-9]*\d[a-z0-9]*):\s*(?:#.*)?$/gim,
    label: /^\s*match:/im,
    fixed: /^\s*-?\s*addresses:\s*\[?\s*["']?[\d"'-]/gim,
  },
  {
    path: /\/etc\/network\/interfaces/,
    mac: new RegExp(`^\\s*iface\\s+mac/${MAC}`, 'gim'),
    name: /^\s*iface\s+((?!lo\b)[\w.-]*\d[\w.-]*)\s+inet6?\s/gim,
    fixed: /^\s*iface\s+(?!lo\b)\S+\s+inet\s+static/gim,
  },
  {
    path: /\/ifcfg-/,
    mac: new RegExp(`^\\s*HWADDR\\s*=\\s*["']?${MAC}`, 'gim'),
    name: /^\s*DEVICE\s*=\s*["']?((?!lo\b)[\w.-]+)/gim,
    fixed: /^\s*IPADDR\d?\s*=/gim,
  },
  {
    path: /\/etc\/NetworkManager\//,
    mac: new RegExp(`^\\s*mac-address\\s*=\\s*${MAC}`, 'gim'),
    name: /^\s*interface-name\s*=\s*([\w.-]*\d[\w.-]*)\s*;?\s*$/gim,
    fixed: /^\s*method\s*=\s*manual/gim,
  },
  {
    path: /\/systemd\/network\//,
    mac: new RegExp(`^\\s*(?:Permanent)?MACAddress\\s*=\\s*${MAC}`, 'gim'),
    name: /^\s*(?:Original)?Name\s*=\s*((?:en|eth|ib|wl)[a-z0-9]*\d[a-z0-9]*)\s*$/gm,
    fixed: /^\s*Address\s*=/gim,
  },
  {
    path: /\/udev\/rules\.d\//,
    mac: new RegExp(`^[^#\\n]*SUBSYSTEM=="net"[^#\\n]*ATTR\\{address\\}=="${MAC}`, 'gim'),
    name: never,
    fixed: never,
  },
];

export function judgeNetwork(facts: MachineFacts): Finding[] {
  const cloud = facts.hasCloudInit
    ? found('cloud-init', '', 'cloud-init is installed: keys and host name come from the cloud')
    : found('cloud-init-missing', '', 'cloud-init is not installed');
  const own = facts.network.filter((file) => !isMadeByCloudInit(facts, file));
  const findings = own.flatMap(judgeFile);
  if (facts.network.length === 0) {
    return [found('network-unknown', '', 'no file of netplan, ifupdown, NetworkManager'), cloud];
  }
  if (findings.length > 0) return [...findings, cloud];
  return [found('network-portable', '', 'not bound to a card or to its name'), cloud];
}

/** Made anew for the machine that it finds, where it may. */
function isMadeByCloudInit({ hasCloudInit, network }: MachineFacts, file: TextFile): boolean {
  const isDisabled = network.some(
    ({ path, text }) =>
      path.includes('/cloud.cfg.d/') && /network:\s*\{?\s*config:\s*disabled/.test(text),
  );
  const isIts =
    /50-cloud-init/.test(file.path) ||
    /^#.*(?:cloud-init|datasource)/im.test(file.text.slice(0, 400));
  return hasCloudInit && !isDisabled && isIts;
}

function judgeFile({ path, text }: TextFile): Finding[] {
  const format = formats.find((each) => each.path.test(path));
  if (format === undefined) return [];
  const all = (pattern: RegExp) => [...new Set([...text.matchAll(pattern)].map((m) => m[1] ?? ''))];
  const macs = all(format.mac);
  const isLabel = format.label?.test(text) ?? false;
  const names = (isLabel ? [] : all(format.name)).filter(
    (name) => !/^(?:bond|br|vlan|team|virbr|docker)/.test(name),
  );
  const findings: Finding[] = [];
  if (macs.length > 0) {
    findings.push(found('network-mac', path, `bound to the card with ${macs.join(', ')}`));
  } else if (names.length > 0) {
    findings.push(found('network-name', path, `bound to the name ${names.join(', ')}`));
  }
  if (all(format.fixed).length > 0) findings.push(found('network-static', path, 'a fixed address'));
  return findings;
}
