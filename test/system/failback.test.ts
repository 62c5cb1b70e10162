/**
 * The way home on real block devices: source, recovery instance (another hardware identity, another device,
 * the source's disk as its content) and the original again, with a ledger of what each has written. Runs
 * are killed in the middle; what was not replicated of the original can be put back.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ApiFailback } from '../../src/staging/api-types.ts';
import { attachLoop, digestOfFile, makeFileSystem, mount, sh } from './helpers/device.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Daemon, detachAgent, Staging, startAgent, understudy } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 1 << 20;
const SIZE = 96 * MIB;

/** A machine of another identity: another machine id, in a mount namespace of its own. */
function elsewhere(scratch: Scratch, digit: string): string[] {
  const machineId = scratch.path(`machine-id-${digit}`);
  writeFileSync(machineId, `${digit.repeat(32)}\n`);
  const script = `mount --bind ${machineId} /etc/machine-id && exec "$@"`;
  return ['unshare', '--mount', 'bash', '-c', script, 'bash'];
}

/** A line of the ledger, durable once it returns. */
function enter(place: string, line: string): void {
  const fd = openSync(`${place}/ledger`, 'a');
  writeSync(fd, `${line}\n`);
  fsyncSync(fd);
  closeSync(fd);
}

const overwrite = (device: string, offset: number, bytes: Buffer): void => {
  const fd = openSync(device, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  fsyncSync(fd);
  closeSync(fd);
};

const timeout = { timeoutMs: 120_000, everyMs: 200 };
const VOLUME = 'root';

async function failbackOf(staging: Staging, job: string): Promise<ApiFailback> {
  return staging.json('failback', 'show', job);
}

describe('failback', () => {
  it('brings home what the instance wrote, by what differs, through kills, and can be undone', async () => {
    await withScratch('failback', async (scratch) => {
      const { server } = scratch;
      let staging = await Staging.start(scratch, { listen: '127.0.0.1:0' });
      const listen = `127.0.0.1:${staging.port}`;
      const disk = attachLoop(scratch, scratch.path('original'), SIZE);
      makeFileSystem(disk.device, 'ext4');
      let unmount = mount(scratch, disk.device, scratch.path('home'), { kind: 'ext4' });
      writeFileSync(scratch.path('home/ballast'), randomBytes(24 * MIB));
      enter(scratch.path('home'), 'original 1');
      sh('sync', '-f', scratch.path('home'));
      const source = startAgent(scratch, staging, { volumes: [`${VOLUME}=${disk.device}`] });
      const [first] = await staging.waitForPoints(1);
      await staging.createPoint(server);
      await source.kill();
      // Cuts go on until it is dead: which one is the last is known when it is gone.
      const isGone = async () => !(await staging.server(server)).connected;
      await waitFor('the end of the source', isGone, timeout);
      const last = (await staging.newest())!;
      // The tail of the original: on its disk, and never replicated.
      enter(scratch.path('home'), 'original, never replicated');
      unmount();
      await detachAgent(server);
      const lost = scratch.path('original-as-it-was');
      copyFileSync(disk.backing, lost);

      // The recovery instance: the source's disk under another name, and another machine.
      const copy = scratch.path('instance');
      await staging.export(last.id, VOLUME, copy);
      const away = attachLoop(scratch, copy);
      unmount = mount(scratch, away.device, scratch.path('away'), { kind: 'ext4' });
      const asInstance = {
        ...{ volumes: [`${VOLUME}=${away.device}`], wrap: elsewhere(scratch, '7') },
      };
      let instance = startAgent(scratch, staging, asInstance);
      await waitFor(
        'the refusal',
        async () => (await staging.server(server)).refused.length > 0,
        timeout,
      );
      const [refused] = (await staging.server(server)).refused;
      expect((await staging.newest())!.id).toBe(last.id);

      const started = await staging.json<ApiFailback>(
        ...['failback', 'start', '--server', server, '--hardware', refused!.hardwareId],
        ...['--yes', '--wait'],
      );
      expect(started).toMatchObject({ phase: 'ready', fromPoint: last.id });
      expect(started.newestPoint! > first!.id).toBe(true);
      const { job } = started;

      // The original, started by mistake, is refused; its points stay as they were.
      // Of its own agent's socket and pins nothing may be taken for the instance's.
      const ownRun = ['unshare', '--mount', 'bash', '-c', 'mount -t tmpfs none /run && exec "$@"'];
      const mistaken = new Daemon(
        scratch,
        'mistaken',
        [
          ...['agent', 'run', '--server', server, '--volume', `${VOLUME}=${disk.device}`],
          ...['--tracker', 'scan', '--if-refused', 'exit'],
        ],
        { environment: staging.environment, wrap: [...ownRun, 'bash'] },
      );
      expect(await mistaken.exit()).toBe(6);

      enter(scratch.path('away'), 'instance 1');
      writeFileSync(scratch.path('away/added'), randomBytes(3 * MIB));
      sh('sync', '-f', scratch.path('away'));
      const run = (...more: string[]) =>
        staging.run(
          ...['failback', 'run', '--server', server, '--map', `${VOLUME}=${disk.device}`],
          ...['--undo', scratch.path('undo'), '--yes', ...more],
        );
      // Refused, before anything is written: mounted, and too small.
      const again = mount(scratch, disk.device, scratch.path('mounted'), { kind: 'ext4' });
      const mounted = await run('--once');
      expect(mounted.exitCode, mounted.err).toBe(6);
      expect(mounted.err).toMatch(/in use: .* is mounted on/);
      again();
      copyFileSync(disk.backing, lost);
      const small = attachLoop(scratch, scratch.path('small'), SIZE - MIB);
      const tooSmall = await staging.run(
        ...[
          'failback',
          'run',
          '--server',
          server,
          '--volume',
          VOLUME,
          '--to',
          small.device,
          '--yes',
        ],
      );
      expect(tooSmall.err).toMatch(/too small for root/);
      const unknown = await staging.run(
        ...['failback', 'run', '--server', server, '--map', `sda=${disk.device}`, '--yes'],
      );
      expect(unknown.exitCode).toBe(5);
      expect(unknown.err).toMatch(/it holds root/);

      // Killed while it writes; then put back; then once more.
      const killed = new Daemon(
        scratch,
        'run-killed',
        ['failback', 'run', '--server', server, '--map', `${VOLUME}=${disk.device}`].concat(
          ...[['--undo', scratch.path('undo'), '--yes', '--every', '1s']],
        ),
        { environment: staging.environment },
      );
      await waitFor('a pass', () => killed.output.includes('chunks compared differed'), timeout);
      // The disk is the run's alone.
      const second = await run('--once');
      expect(second.err).toMatch(/in use/);
      await killed.kill();
      const undone = await understudy([
        ...['failback', 'undo', scratch.path('undo'), '--to', disk.device, '--yes', '--json'],
      ]);
      expect(undone.exitCode, undone.err).toBe(0);
      expect(digestOfFile(disk.device)).toBe(digestOfFile(lost));

      const once = await run('--once', '--json');
      expect(once.exitCode, once.err).toBe(0);
      const { volumes } = JSON.parse(once.out);
      expect(volumes[0]).toMatchObject({ volume: VOLUME, chunks: SIZE / 65_536 });
      expect(volumes[0].different).toBeGreaterThan(0);
      expect(volumes[0].writtenBytes).toBeLessThan(SIZE / 4);

      // Staging dies and comes back while passes go on; the instance works on; then the end.
      const finishing = new Daemon(
        scratch,
        'run-finish',
        [
          ...['failback', 'run', '--server', server, '--map', `${VOLUME}=${disk.device}`],
          ...['--undo', scratch.path('undo'), '--yes', '--every', '1s', '--json'],
        ],
        { environment: staging.environment },
      );
      await waitFor('the run', () => finishing.errors.includes('ready'), timeout);
      // The instance dies, too, and is started again.
      await instance.kill();
      await staging.daemon.kill();
      staging = await Staging.start(scratch, { dataFolder: staging.dataFolder, listen });
      instance = startAgent(scratch, staging, asInstance);
      await waitFor(
        'the instance again',
        async () => (await failbackOf(staging, job)).phase === 'ready',
        timeout,
      );
      enter(scratch.path('away'), 'instance 2, the last');
      unmount();
      const fenced = await staging.json<ApiFailback>(
        ...['failback', 'finish', '--server', server, '--yes'],
      );
      expect(['fenced', 'done']).toContain(fenced.phase);
      // Whatever the instance writes after the fence does not become the newest point.
      overwrite(away.device, SIZE - MIB, Buffer.from('after the fence'));
      expect(await finishing.exit(), finishing.errors).toBe(0);
      const done = await failbackOf(staging, job);
      expect(done).toMatchObject({ phase: 'done', lastPoint: fenced.lastPoint });
      expect((await staging.newest())!.id).toBe(done.lastPoint);
      expect(JSON.parse(finishing.output)).toMatchObject({ phase: 'done', verified: true });
      const status = () => understudy(['agent', 'status', '--server', server, '--json']);
      // The instance hears of it when it comes back to staging.
      const isRefused = async () => (await status()).exitCode === 6;
      await waitFor('the refusal of the instance', isRefused, timeout);
      expect(JSON.parse((await status()).out).refused.message).toMatch(/switched|failed back/);
      await instance.kill();
      await detachAgent(server);

      // Home again: the same bytes, the ledger of both, and a new lineage.
      const out = scratch.path('last-point');
      await staging.export(done.lastPoint!, VOLUME, out);
      expect(digestOfFile(disk.device)).toBe(digestOfFile(out));
      mount(scratch, disk.device, scratch.path('home-again'), { kind: 'ext4' });
      expect(readFileSync(scratch.path('home-again/ledger'), 'utf8').split('\n')).toEqual([
        ...['original 1', 'instance 1', 'instance 2, the last', ''],
      ]);
      startAgent(scratch, staging, { volumes: [`${VOLUME}=${disk.device}`] });
      const next = await staging.createPoint(server).catch(async () => {
        await staging.waitForPoints(1);
        return staging.createPoint(server);
      });
      expect(next.volumes[0]!.generation).not.toBe(last.volumes[0]!.generation);
      const { former } = await staging.server(server);
      expect(former.map(({ lastPoint }) => lastPoint)).toEqual([last.id, done.lastPoint]);
    });
  });

  it('that is given up lets the original go on, which has run all the time', async () => {
    await withScratch('failback-cancel', async (scratch) => {
      const { server } = scratch;
      const staging = await Staging.start(scratch);
      const home = scratch.path('original');
      writeFileSync(home, randomBytes(4 * MIB));
      const scan = ['--tracker', 'scan'];
      const original = startAgent(scratch, staging, {
        volumes: [`${VOLUME}=${home}`],
        words: scan,
      });
      await staging.waitForPoints(1);
      const first = await staging.createPoint(server);
      const away = scratch.path('instance');
      copyFileSync(home, away);
      const run = 'mount -t tmpfs none /run && exec "$@"';
      const instance = startAgent(scratch, staging, {
        volumes: [`${VOLUME}=${away}`],
        words: scan,
        wrap: [...elsewhere(scratch, '7'), 'bash', '-c', run, 'bash'],
      });
      const refused = async () => (await staging.server(server)).refused;
      await waitFor('the refusal', async () => (await refused()).length > 0, timeout);
      const { hardwareId } = (await refused())[0]!;
      const begin = ['failback', 'start', '--server', server, '--hardware', hardwareId];
      const { job } = await staging.json<ApiFailback>(...begin, '--yes', '--wait');
      await staging.json('failback', 'cancel', '--server', server, '--yes');
      expect((await failbackOf(staging, job)).phase).toBe('cancelled');
      await instance.kill();
      overwrite(home, MIB, Buffer.from('what the original wrote on'));
      const next = async () => {
        const { connected, state } = await staging.server(server);
        return connected && state === 'continuous';
      };
      await waitFor('the original', next, timeout);
      expect(original.child.exitCode).toBe(null);
      const last = await staging.createPoint(server);
      expect(last.volumes[0]!.generation).not.toBe(first.volumes[0]!.generation);
      const out = scratch.path('out');
      await staging.export(last.id, VOLUME, out);
      expect(digestOfFile(out)).toBe(digestOfFile(home));
    });
  });
});
