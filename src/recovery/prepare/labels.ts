/**
 * SELinux labels for the files that the preparation adds: what is made where no SELinux runs has none, and
 * programs that are confined may not read it, which on a machine that enforces leaves it without a network.
 * The labels are those that the policies of Fedora and RHEL give to these paths; files that were there keep
 * their own, for they are written over in place. Nothing is relabelled at boot: that takes hours, and boots
 * twice.
 */
import type { DiskTree } from './disk-tree.ts';
import { Refusal } from './guest.ts';
import type { Notes } from './report.ts';
import { readText } from './tree-text.ts';

const CONFIG = '/etc/selinux/config';
const context = (type: string): string => `system_u:object_r:${type}:s0`;

/** The first that fits. */
const types: readonly (readonly [RegExp, string])[] = [
  [/^\/etc\/NetworkManager\/system-connections\//, 'NetworkManager_etc_rw_t'],
  [/^\/etc\/sysconfig\/network-scripts\//, 'net_conf_t'],
  [/^\/etc\/systemd\/system\//, 'systemd_unit_file_t'],
  [/^\/etc\//, 'etc_t'],
];

export async function labelAdded(
  tree: DiskTree,
  notes: Notes,
  added: readonly string[],
): Promise<void> {
  const isOn = /^\s*SELINUX\s*=\s*(?:enforcing|permissive)/m.test(
    (await readText(tree, CONFIG)) ?? '',
  );
  if (!isOn) return;
  const unlabelled: string[] = [];
  for (const path of added) {
    const type = types.find(([pattern]) => pattern.test(path))?.[1];
    if (type === undefined || (await tree.stat(path)).kind === null) continue;
    try {
      await tree.label(context(type), path);
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      unlabelled.push(path);
    }
  }
  if (unlabelled.length === 0) return;
  const what = `no label for ${unlabelled.join(', ')}`;
  notes.add(
    'warning',
    'selinux',
    CONFIG,
    `${what}: where it enforces, restorecon -R /etc, or enforcing=0`,
  );
}
