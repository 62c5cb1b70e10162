/** The line of a serial probe: whose it is, what of it is kept, and that the password is not. */
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { vmPaths } from '../../src/recovery/qemu/command.ts';
import { ConsoleMask } from '../../src/recovery/qemu/console-mask.ts';
import type { LaunchOptions } from '../../src/recovery/runner.ts';
import { type GuestKind, SerialGuest } from './support/serial-guest.ts';
import { WatchWorld } from './support/watch-world.ts';

/** A talk waits until the guest is quiet; this many times faster. */
const SPEED = 10;
const PASSWORD = 'correct horse';
const kind: GuestKind = { start: 'login', user: 'op', password: PASSWORD };
const options: LaunchOptions = {
  ...{ check: true, timeoutMs: 60_000, keepRunning: true },
  ...{ probe: 'serial:op', probePasswordFile: 'op', probeRun: 'echo all is well' },
};

/** Serves one client at a time, as QEMU does; what the guest says goes to the log, too. */
class SerialLine {
  guest: SerialGuest;
  client: Socket | null = null;
  clients = 0;
  private readonly world: WatchWorld;
  private readonly server: Server;

  constructor(world: WatchWorld, guest: GuestKind) {
    this.world = world;
    this.guest = new SerialGuest(guest);
    this.server = createServer((socket) => this.serve(socket));
    this.server.listen(vmPaths(world.runFolder).serial);
    this.tellControl();
  }

  close(): void {
    this.client?.destroy();
    this.server.close();
  }

  private serve(socket: Socket): void {
    this.clients += 1;
    this.client = socket;
    this.tellControl();
    socket.on('data', (data) => {
      const said = this.guest.type(data.toString());
      this.world.print(said);
      socket.write(said);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.client = null;
      this.tellControl();
    });
  }

  tellControl(isTaken = this.client !== null): void {
    const filename = `${isTaken ? '' : 'disconnected:'}unix:/serial.sock,server=on`;
    this.world.socket.answers['query-chardev'] = [
      { label: 'compat_monitor0', filename: 'unix:/qmp.sock,server=on' },
      { label: 'serial0', filename },
    ];
  }
}

let world: WatchWorld;
let line: SerialLine;
let leave: AbortController;
beforeEach(() => {
  world = new WatchWorld(SPEED);
  line = new SerialLine(world, kind);
  leave = new AbortController();
  writeFileSync(join(world.folder, 'op'), `${PASSWORD}\n`, { mode: 0o600 });
});
afterEach(() => {
  line.close();
  world.close();
});

const until = (isSo: () => boolean) => expect.poll(isSo).toBe(true);
const evidence = (): string => readFileSync(join(world.folder, 'probe.log'), 'utf8');

/** Watches until the check has its verdict. */
async function checked(changed: LaunchOptions = {}): Promise<void> {
  const watch = await world.watch('drill', { ...options, ...changed }, leave.signal);
  const ended = watch.untilEnd();
  try {
    await Promise.race([until(() => world.check !== null), ended]);
    leave.abort();
    await ended;
  } finally {
    watch.close();
  }
}

/** All that is kept of the job, in one text. */
const kept = () =>
  [world.console(), evidence(), JSON.stringify([world.check, world.notes, world.said])].join('\n');

describe('a probe over the serial line', () => {
  it('takes it when a prompt is there, keeps what was said, and gives it back at a login prompt', async () => {
    const ended = checked();
    await until(() => world.socket.asked.includes('query-status') || world.phases.length > 0);
    expect(line.clients).toBe(0);
    world.print('Debian\r\nguest login: [    3.264999] eth0: link becomes ready\r\n');
    await ended;
    expect(world.check).toMatchObject({
      ...{ passed: true, probe: 'serial:op', detail: 'the command has succeeded: all is well' },
    });
    expect(evidence()).toMatch(/^\S+ the command has succeeded: all is well\n\nall is well\n$/);
    expect(line.guest.isAtLogin).toBe(true);
    await until(() => line.client === null);
    expect(line.clients).toBe(1);
    expect(kept()).not.toContain(PASSWORD);
  });

  it('keeps the password of a guest that shows it out of log, evidence and verdict', async () => {
    line.guest = new SerialGuest({ ...kind, isIndiscreet: true });
    world.print('guest login: ');
    await checked({ probeRun: `echo ${'it is'} "correct"" horse"; exit 0` });
    expect(world.check).toMatchObject({ passed: true });
    expect(world.check!.detail).toContain('it is *************');
    expect(world.console()).toContain('Password: *************\r\n');
    expect(kept()).not.toContain(PASSWORD);
  });

  it('waits for an operator who is on the line, and types nothing meanwhile', async () => {
    world.print('guest login: ');
    line.tellControl(true);
    const ended = checked();
    await until(() => world.socket.asked.filter((each) => each === 'query-chardev').length > 2);
    expect(line.clients).toBe(0);
    line.tellControl(false);
    await ended;
    expect(world.check?.passed).toBe(true);
  });

  it('asks again while the command fails, and tells how it ended last', async () => {
    world.print('guest login: ');
    const flag = join(world.folder, 'flag');
    const ended = checked({ probeRun: `test -e ${flag} || { echo not yet; exit 4; }` });
    const path = join(world.folder, 'probe.log');
    const isTold = () => evidence().includes('the command ended with 4: not yet\n\nnot yet\n');
    await until(() => existsSync(path) && isTold());
    writeFileSync(flag, '');
    await ended;
    expect(world.check).toMatchObject({ passed: true, detail: 'the command has succeeded' });
    expect(line.clients).toBe(2);
  });

  it('does not take the words of a command for the end of the boot', async () => {
    world.print('guest login: ');
    await checked({ probeRun: 'echo Kernel panic - not syncing: no' });
    expect(world.check).toMatchObject({ passed: true });
    [world.check, world.notes] = [null, {}];
    writeFileSync(world.consolePath, '');
    world.print('Kernel panic - not syncing: yes\n');
    leave = new AbortController();
    await expect(checked()).rejects.toMatchObject({ code: 'ERR_BOOT_CHECK' });
    expect(world.check).toMatchObject({ passed: false, detail: expect.stringMatching(/panic/) });
  });

  it.each<[string, string, Partial<GuestKind>, LaunchOptions, (() => boolean) | null, RegExp]>([
    [
      'no prompt',
      'Starting\r\n',
      {},
      {},
      () => true,
      /no good answer.*no login prompt on the serial console$/,
    ],
    [
      'a refusal',
      'guest login: ',
      { refusal: 'Login incorrect' },
      {},
      null,
      /^the login of op was refused: Login inc/,
    ],
    [
      'exit code 3',
      'guest login: ',
      {},
      { probeRun: 'exit 3' },
      () => existsSync(join(world.folder, 'probe.log')),
      /last one: the command ended with 3$/,
    ],
  ])('fails by %s', async (_what, said, guest, changed, isTimeOver, detail) => {
    line.guest = new SerialGuest({ ...kind, ...guest });
    world.print(said);
    const failed = expect(checked({ keepRunning: false, ...changed })).rejects.toMatchObject({
      code: 'ERR_BOOT_CHECK',
    });
    if (isTimeOver !== null) {
      await until(isTimeOver);
      world.leapMs = Number(options.timeoutMs);
    }
    await failed;
    expect(world.check).toMatchObject({ passed: false, detail: expect.stringMatching(detail) });
    expect(world.console()).not.toContain(PASSWORD);
  });

  it('needs the file of the password, for its owner alone', async () => {
    const path = join(world.folder, 'op');
    world.print('guest login: ');
    chmodSync(path, 0o644);
    const refused = {
      code: 'ERR_LAUNCH_OPTIONS',
      message: expect.stringMatching(/read by others/),
    };
    await expect(checked()).rejects.toMatchObject(refused);
    rmSync(path);
    await expect(checked()).rejects.toMatchObject({ message: expect.stringMatching(/ENOENT/) });
    writeFileSync(path, 'two\nlines\n', { mode: 0o600 });
    await expect(checked()).rejects.toMatchObject({ message: expect.stringMatching(/one line/) });
  });
});

describe('the mask over the console log', () => {
  it('covers what comes in halves, what was emptied, and nothing before its time', () => {
    world.print('horse op: ');
    const mask = new ConsoleMask(world.consolePath, 'horse', 10);
    mask.cover();
    world.print('ho');
    mask.cover();
    world.print('rse!horsehorse');
    mask.cover();
    expect(world.console()).toBe('horse op: *****!**********');
    writeFileSync(world.consolePath, 'horse');
    mask.cover();
    expect(world.console()).toBe('*****');
  });

  it('covers all of it where a former life has typed', async () => {
    world.print('guest login: op\r\nPassword: correct horse\r\nguest login: ');
    world.notes = { hasTyped: true };
    await checked();
    expect(world.console()).not.toContain(PASSWORD);
    expect(world.console().startsWith('guest login: op\r\nPassword: *************')).toBe(true);
  });
});
