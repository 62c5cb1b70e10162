/** The watch over a running machine, with a process in QEMU's place and a control socket that breaks. */
import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { imageServerPaths } from '../../src/recovery/qemu/image-server.ts';
import { WatchWorld } from './support/watch-world.ts';

let world: WatchWorld;
beforeEach(() => {
  world = new WatchWorld();
});
afterEach(() => world.close());

const until = (isSo: () => boolean) => expect.poll(isSo).toBe(true);

describe('a failover', () => {
  it('is watched on by another connection where the control socket breaks, until it ends by itself', async () => {
    const watch = await world.watch('failover', { standAlone: true });
    world.socket.cutAt = 'query-block-jobs';
    const ended = watch.untilEnd();
    await until(() => world.socket.connections > 2);
    expect(world.said.filter((line) => line.includes('QEMU has ended'))).toHaveLength(1);
    world.socket.cutAt = '';
    await until(() => world.socket.asked.includes('block-stream'));
    world.end();
    expect(await ended).toBe('done');
    expect(world.said.at(-1)).toBe('the virtual machine has ended by itself');
    watch.close();
  });

  it('has an image server that ended started again, and is watched on where that fails', async () => {
    const watch = await world.watch('failover', {});
    writeFileSync(imageServerPaths(world.runFolder, 0).pidfile, '');
    const ended = watch.untilEnd();
    await until(() => world.said.some((line) => line.includes('no way to')));
    world.end();
    expect(await ended).toBe('done');
  });

  it('whose machine is killed has failed, and says how to start it again', async () => {
    const watch = await world.watch('failover', {});
    const ended = watch.untilEnd();
    world.machine.kill('SIGKILL');
    await expect(ended).rejects.toMatchObject({
      code: 'ERR_LAUNCH_GONE',
      message: expect.stringContaining('failover start --again j'),
    });
  });

  it('goes on where nothing can be written down, and where its check fails', async () => {
    world.isFull = true;
    const leave = new AbortController();
    const options = { check: true, probe: 'tcp:22', timeoutMs: 1500 };
    const watch = await world.watch('failover', options, leave.signal);
    world.socket.cutAt = 'human-monitor-command';
    const ended = watch.untilEnd();
    await until(() => world.said.some((line) => line.startsWith('check failed')));
    expect(world.said.join('\n')).toMatch(/not written down: no room/);
    world.isFull = false;
    leave.abort();
    expect(await ended).toBe('left');
    expect(world.machine.exitCode).toBe(null);
    watch.close();
  });

  it('tells a check that has failed, and is up', async () => {
    const leave = new AbortController();
    world.print('Kernel panic - not syncing: VFS\n');
    const watch = await world.watch('failover', { check: true, timeoutMs: 60_000 }, leave.signal);
    const ended = watch.untilEnd();
    await until(() => world.phases.at(-1) === 'up');
    expect(world.check).toMatchObject({ passed: false, detail: expect.stringContaining('panic') });
    leave.abort();
    expect(await ended).toBe('left');
    watch.close();
  });
});

it('a drill whose control socket breaks, or whose check fails, has failed', async () => {
  const copying = await world.watch('drill', { standAlone: true });
  world.socket.cutAt = 'query-block-jobs';
  await expect(copying.untilEnd()).rejects.toMatchObject({ code: 'ERR_LAUNCH_FAILED' });
  copying.close();
  world.print('Kernel panic - not syncing: VFS\n');
  const checked = await world.watch('drill', { check: true, timeoutMs: 60_000 });
  await expect(checked.untilEnd()).rejects.toMatchObject({ code: 'ERR_BOOT_CHECK' });
  checked.close();
});
