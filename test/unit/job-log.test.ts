/** The log of a job on an operator's terminal: guests and scripts wrote some of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { CommandContext } from '../../src/cli/command.ts';
import { jobGroup } from '../../src/cli/commands/job.ts';
import { plainLog } from '../../src/cli/job-log.ts';
import type { Settings } from '../../src/cli/settings.ts';
import { askBySsh, type SshQuestion } from '../../src/recovery/qemu/ssh-probe.ts';

it('lines come as they are, and nothing in them acts on a terminal', () => {
  expect(plainLog('a\tb\r\nlogin: é\n\n')).toBe('a\tb\nlogin: é');
  const clipboard = '\x1b]52;c;aGk=\x07';
  const title = '\x9d0;x\x9c';
  const said = plainLog(`${clipboard}1\x1b[2J\x1b[31m2${title}\x1bP3\x07\b\r4\x7f\x00`);
  for (const char of said) expect(char >= ' ' && char < '\x7f').toBe(true);
  expect(said).toMatch(/^12.*4$/);
});

it('nor in what an SSH probe was told', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-ssh-'));
  const script = "#!/bin/sh\nprintf 'ok\\033]0;t\\007 \\302\\233x'\n";
  writeFileSync(join(folder, 'ssh'), script, { mode: 0o755 });
  const { PATH } = process.env;
  process.env.PATH = `${folder}:${PATH}`;
  try {
    const question = { user: 'u', port: 22, key: 'k', run: 'true' } as unknown as SshQuestion;
    const answer = await askBySsh({ ...question, signal: new AbortController().signal });
    expect(answer).toEqual({ isGood: true, detail: 'the command has succeeded: ok ]0;t   x' });
  } finally {
    process.env.PATH = PATH;
    rmSync(folder, { recursive: true });
  }
});

it('the command prints it so, and as JSON every byte', async () => {
  const text = 'x\x1b[2Jy';
  const folder = mkdtempSync(join(tmpdir(), 'understudy-log-'));
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ text }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  writeFileSync(join(folder, 'token'), 'a'.repeat(64), { mode: 0o600 });
  const words: Record<string, string> = {
    ...{ staging: `http://127.0.0.1:${port}`, 'token-file': join(folder, 'token') },
    ...{ job: 'j', of: 'console' },
  };
  const printed: string[] = [];
  const stop = new AbortController().signal;
  const context = {
    stop,
    print: (line: string) => printed.push(line),
  } as unknown as CommandContext;
  const log = jobGroup.commands.find(({ path }) => path[1] === 'log')!;
  try {
    for (const isJson of [false, true]) {
      await log.run(context, {
        text: (name: string) => words[name],
        optionalText: () => undefined,
        flag: () => isJson,
      } as unknown as Settings);
    }
    expect(printed).toEqual(['xy', JSON.stringify({ text })]);
  } finally {
    server.close();
    server.closeAllConnections();
    rmSync(folder, { recursive: true });
  }
});
