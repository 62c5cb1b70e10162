/**
 * Whether KVM really works here, found by a boot of 512 bytes against the clock. /dev/kvm may be there, and
 * a virtual machine start, and yet run by an emulator of single instructions that takes minutes for what a
 * processor, or TCG, does in seconds: such a host gets TCG, and is told so.
 */

import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { formatDuration } from '../../base/units.ts';
import type { Accelerator } from './command.ts';

export interface Acceleration {
  readonly accelerator: Accelerator;
  /** For people: why this one. */
  readonly reason: string;
}

const LIMIT_MS = 3000;
/** The firmware does not read from a disk of one sector. */
const DISK_BYTES = 2 ** 20;
const EXIT_PORT = 0xf4;
/** The device ends QEMU with (value << 1) | 1. */
const EXIT_VALUE = 0x21;
const EXIT_CODE = (EXIT_VALUE << 1) | 1;

/** cli; mov ecx, 50,000,000; loop: dec ecx; jnz loop; out EXIT_PORT, EXIT_VALUE; hlt (real mode). */
export function bootSector(): Buffer {
  const sector = Buffer.alloc(DISK_BYTES);
  const loops = Buffer.alloc(4);
  loops.writeUInt32LE(50_000_000);
  const code = [
    ...[0xfa, 0x66, 0xb9, ...loops, 0x66, 0x49, 0x75, 0xfc],
    ...[0xb0, EXIT_VALUE, 0xe6, EXIT_PORT, 0xf4],
  ];
  sector.set(code);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

/** Boots the sector. True: it ran to its end in time. */
export async function bootsWith(accelerator: Accelerator, limitMs: number): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-probe-'));
  try {
    const path = join(folder, 'sector');
    await writeFile(path, bootSector());
    return (await exitOf(probeWords(accelerator, path), limitMs)) === EXIT_CODE;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const probeWords = (accelerator: Accelerator, path: string): string[] => [
  ...['-machine', 'q35', '-accel', accelerator, '-cpu', accelerator === 'kvm' ? 'host' : 'max'],
  ...['-m', '32M', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
  ...['-device', `isa-debug-exit,iobase=0x${EXIT_PORT.toString(16)},iosize=1`],
  ...['-drive', `if=none,id=d,format=raw,readonly=on,file=${path.replaceAll(',', ',,')}`],
  ...['-device', 'virtio-blk-pci,drive=d,bootindex=1'],
];

function exitOf(words: readonly string[], limitMs: number): Promise<number | null> {
  return new Promise((resolve) => {
    const child = spawn('qemu-system-x86_64', words, {
      ...{ stdio: 'ignore', timeout: limitMs, killSignal: 'SIGKILL' },
    });
    // What cannot be started does not work; that QEMU is there was asked before.
    child.on('error', () => resolve(null));
    child.on('close', (code) => resolve(code));
  });
}

function hasKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

export type ChooseAcceleration = (wanted: string) => Promise<Acceleration>;

/** Asks once in a life of the service. */
export function createAccelerationChoice(clock: Clock): ChooseAcceleration {
  let found: Promise<Acceleration> | null = null;
  const find = async (): Promise<Acceleration> => {
    if (!hasKvm()) return { accelerator: 'tcg', reason: '/dev/kvm is not there for this user' };
    const startMs = clock.monotonicMs();
    const works = await bootsWith('kvm', LIMIT_MS);
    const tookMs = Math.round(clock.monotonicMs() - startMs);
    return works
      ? { accelerator: 'kvm', reason: `a test boot under KVM took ${formatDuration(tookMs)}` }
      : {
          accelerator: 'tcg',
          reason: `a test boot under KVM did not end within ${formatDuration(LIMIT_MS)}`,
        };
  };
  return async (wanted) => {
    if (wanted !== 'auto') return { accelerator: wanted as Accelerator, reason: 'as asked for' };
    found ??= find();
    return found;
  };
}
