/** What commands about the agent of this machine say where there is none, or where it may not be asked. */
import { describe, expect, it } from 'vitest';
import { statusFailure } from '../../src/agent/status-socket.ts';
import { isPinned } from '../../src/native/detach.ts';
import { runLine } from './support/command-line.ts';

const failing = (code: string) => () => {
  throw Object.assign(new Error(code), { code });
};

describe('agent detach', () => {
  it('says that nothing was tracked under a name that never was', async () => {
    const { exitCode, out } = await runLine(['agent', 'detach', '--server', 'never-was', '--yes']);
    expect([exitCode, out]).toEqual([0, 'nothing was tracked for never-was on this machine\n']);
  });

  it.each(['a/../b', 'x'.repeat(300), '.'])('refuses %s: it is no name', async (server) => {
    const { exitCode, err } = await runLine(['agent', 'detach', '--server', server, '--yes']);
    expect(err).toContain('ERR_AGENT_NAME');
    expect(exitCode).toBe(2);
  });

  it('does not take what it may not see for nothing', () => {
    expect(isPinned('/', () => undefined)).toBe(true);
    expect(isPinned('/pins', failing('ENOENT'))).toBe(false);
    for (const code of ['EACCES', 'EPERM']) {
      expect(() => isPinned('/pins', failing(code))).toThrow(
        expect.objectContaining({ code: 'ERR_TRACKER_PERMISSION' }),
      );
    }
  });
});

describe('agent status', () => {
  it('of an agent that one may not ask does not say that none runs', () => {
    const cause = (code: string) => Object.assign(new Error(code), { code });
    expect(statusFailure('/run/x', 'web1', cause('EACCES')).code).toBe('ERR_DISK_PERMISSION');
    expect(statusFailure('/run/x', 'web1', cause('ENOENT')).code).toBe('ERR_AGENT_NOT_RUNNING');
    expect(statusFailure('/run/x', 'web1').code).toBe('ERR_AGENT_NOT_RUNNING');
  });
});
