/**
 * A machine that is protected, in QEMU: its own disk, a way to this machine at 10.0.2.2, a plug that can be
 * pulled; and a hand in each machine that runs test/tools/debian-disk.ts with `handProgram`, also in those
 * that were launched from its recovery points.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { judgeConsole } from '../../../src/recovery/qemu/console-state.ts';
import type { Scratch } from './scratch.ts';
import { waitFor } from './wait.ts';

/** Four times what a boot takes while others use the processors. */
export const GUEST_MS = 480_000;

export interface GuestOptions {
  readonly disk: string;
  readonly uuid: string;
  readonly memoryMiB: number;
}

export class Guest {
  readonly consolePath: string;
  private readonly child: ChildProcess;
  private readonly ended: Promise<void>;

  constructor(scratch: Scratch, name: string, { disk, uuid, memoryMiB }: GuestOptions) {
    // Named so that its end is shown where the test fails.
    this.consolePath = scratch.path(`${name}-console.err`);
    const log = openSync(scratch.path(`${name}-qemu.err`), 'w');
    const words = [
      ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2'],
      ...['-m', `${memoryMiB}M`, '-uuid', uuid, '-rtc', 'base=utc,clock=host'],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-serial', `file:${this.consolePath}`, '-device', 'virtio-rng-pci'],
      ...['-drive', `if=none,id=d0,file=${disk},format=raw`],
      ...['-device', 'virtio-blk-pci,drive=d0,bootindex=1'],
      ...['-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0,romfile='],
    ];
    this.child = spawn('qemu-system-x86_64', words, { stdio: ['ignore', log, log] });
    closeSync(log);
    this.ended = new Promise((done) => {
      this.child.on('error', () => done());
      this.child.on('close', () => done());
    });
    scratch.defer(() => this.pullPlug());
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async pullPlug(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** Waits until `isSo`; not for a machine that has ended or is stuck. */
  async until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
    await untilGuest(what, this.consolePath, () => this.isRunning, isSo);
  }
}

/** Waits for what a guest is to do, while its console does not say that it never will. */
export async function untilGuest(
  what: string,
  consolePath: string,
  isRunning: () => boolean,
  isSo: () => boolean | Promise<boolean>,
): Promise<void> {
  const options = { timeoutMs: GUEST_MS, everyMs: 200 };
  await waitFor(
    what,
    async () => {
      if (await isSo()) return true;
      const said = judgeConsole(consoleText(consolePath).slice(-65_536));
      if (said.kind === 'stuck') throw new Error(`${what}: the console says ${said.line}`);
      if (!isRunning()) throw new Error(`${what}: the machine has ended`);
      return false;
    },
    options,
  );
}

export const consoleText = (path: string): string =>
  existsSync(path) ? readFileSync(path, 'latin1') : '';

/** Runs in the guest as a service: does what this machine says, line by line. For tests alone. */
export const handProgram = (port: number): string => `#!/bin/bash
exec 3<>/dev/tcp/10.0.2.2/${port} || exit 1
echo "$(cat /sys/class/dmi/id/product_uuid) $(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r line <&3; do
  bash -c "$line" >&3 2>&1 </dev/null
  printf '\\n::end %s\\n' "$?" >&3
done
`;

export interface Done {
  readonly exitCode: number;
  readonly out: string;
}

export class Hand {
  readonly uuid: string;
  readonly bootId: string;
  private readonly socket: Socket;
  private text = '';

  constructor(socket: Socket, hello: string, rest: string) {
    this.socket = socket;
    this.text = rest;
    [this.uuid = '', this.bootId = ''] = hello.split(' ');
  }

  take(data: string): void {
    this.text += data;
  }

  get isThere(): boolean {
    return !this.socket.destroyed;
  }

  close(): void {
    this.socket.destroy();
  }

  /** Runs one line of shell in the guest. Its output holds both streams. */
  async run(line: string, timeoutMs = GUEST_MS): Promise<Done> {
    this.text = '';
    this.socket.write(`${line}\n`);
    const end = /\n?::end (\d+)\n/;
    await waitFor(`"${line}" in the guest`, () => end.test(this.text) || !this.isThere, {
      timeoutMs,
      everyMs: 50,
    });
    const match = end.exec(this.text);
    if (match === null) throw new Error(`the guest went away during "${line}"`);
    return { exitCode: Number(match[1]), out: this.text.slice(0, match.index) };
  }
}

/** All hands that have come, the newest last. */
export class Hands {
  readonly all: Hand[] = [];
  private readonly server: Server;

  constructor(port: number) {
    this.server = createServer((socket) => {
      let hand: Hand | undefined;
      let text = '';
      socket.on('error', () => socket.destroy());
      socket.on('data', (data: Buffer) => {
        if (hand !== undefined) return hand.take(data.toString());
        text += data.toString();
        const end = text.indexOf('\n');
        if (end < 0) return;
        hand = new Hand(socket, text.slice(0, end), text.slice(end + 1));
        this.all.push(hand);
      });
    });
    this.server.listen(port, '127.0.0.1');
  }

  find(isWanted: (hand: Hand) => boolean): Hand | undefined {
    return this.all.findLast((hand) => hand.isThere && isWanted(hand));
  }

  close(): void {
    this.server.close();
    for (const hand of this.all) hand.close();
  }
}
