/** The part of the catalogue of errors (errors.ts) that is about source servers: native code and agent. */
import { spec } from './error-spec.ts';

export const sourceErrors = {
  // native
  ERR_NATIVE_MISSING: spec('operational', 3, 'Build the addon: npm run build:native.'),
  ERR_DEVICE_OPEN: spec('operational', 3, 'Does the device exist, and may this user read it?'),
  ERR_DEVICE_NOT_VOLUME: spec(
    'usage',
    2,
    'Give a block device or a regular file; for a mounted file system, its device (findmnt).',
  ),
  ERR_DEVICE_READ: spec(
    'operational',
    3,
    'The device returned an error; see the kernel log.',
    true,
  ),
  ERR_DEVICE_GONE: spec('operational', 3, 'The device has vanished; attach it again.'),
  ERR_DEVICE_CLOSED: spec('bug', 1, 'The device was used after it had been closed.'),
  ERR_ENGINE_START: spec('operational', 3, 'Is io_uring allowed (kernel.io_uring_disabled = 0)?'),
  ERR_ENGINE_READ: spec('operational', 3, 'io_uring refused a request; see the errno.'),
  ERR_ENGINE_CLOSED: spec('bug', 1, 'The engine was used after it had been closed.'),
  ERR_TRACKER_REFUSED: spec(
    'operational',
    6,
    'Replicate the whole disks beneath, or use --tracker scan.',
  ),
  ERR_TRACKER_OVERLAP: spec('usage', 6, 'Give each disk or partition once, and not both.'),
  ERR_TRACKER_IN_USE: spec('operational', 6, 'Another agent of this name is running here.'),
  ERR_TRACKER_PERMISSION: spec(
    'operational',
    3,
    'The agent needs root, or CAP_BPF and CAP_PERFMON.',
  ),
  ERR_TRACKER_LOAD: spec(
    'operational',
    3,
    'The tracker needs Linux 5.17 with BTF (/sys/kernel/btf/vmlinux); --tracker scan works anywhere.',
  ),
  ERR_TRACKER_PIN: spec('operational', 3, 'A pin below /sys/fs/bpf/understudy has gone.'),
  ERR_TRACKER_DAMAGED: spec(
    'operational',
    3,
    'The pinned marks are of another version or damaged.',
  ),
  ERR_TRACKER_MEMORY: spec('operational', 3, 'Raise the memory budget of the tracker.'),
  ERR_TRACKER_UNTRACKED: spec('bug', 1, 'The scan backend has no marks: it only reads.'),
  // agent
  ERR_AGENT_RUNNING: spec('operational', 6, 'Stop the other agent, or give another --server.'),
  ERR_AGENT_NOT_RUNNING: spec('operational', 5, 'Start the agent; is --server the right name?'),
  ERR_AGENT_REFUSED: spec('operational', 6, 'Staging refused this agent; its reason says why.'),
  ERR_AGENT_NAME: spec('usage', 2, 'A server name has letters, digits and . _ - (1 to 128).'),
} as const;
