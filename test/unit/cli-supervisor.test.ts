/** What a service tells systemd: that it is ready, where systemd asks for it, and nothing elsewhere. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createLog } from '../../src/base/log.ts';
import { tellReady } from '../../src/cli/supervisor.ts';

let folder: string;
let warnings: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-supervisor-'));
  warnings = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const log = createLog({ sink: (line) => warnings.push(JSON.parse(line).message) });
/** What is said again after a while, by whoever is not root, is never said here. */
const clock = { ...systemClock, after: () => ({ cancel: () => undefined }) };
const tell = (environment: Record<string, string>) => tellReady({ environment, clock, log });
const told = (): string => join(folder, 'told');

function placeProgram(): void {
  const text = `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >${told()}.new && /bin/mv ${told()}.new ${told()}\n`;
  writeFileSync(join(folder, 'systemd-notify'), text, { mode: 0o755 });
}
const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 10));
};

it('is told by the program of systemd, to the socket that it gave', async () => {
  placeProgram();
  tell({ NOTIFY_SOCKET: '/run/some', PATH: folder });
  await until(() => existsSync(told()));
  expect(readFileSync(told(), 'utf8')).toBe('/run/some --ready\n');
  expect(warnings).toEqual([]);
});

it('is not told where nobody asks', async () => {
  // The program is missing: whoever looks for it leaves a warning, in the order of the calls.
  tell({ PATH: folder });
  tell({ NOTIFY_SOCKET: '/run/some', PATH: folder });
  await until(() => warnings.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(warnings).toHaveLength(1);
});

it('is a warning where the program is missing: the service goes on', async () => {
  tell({ NOTIFY_SOCKET: '/run/some', PATH: folder });
  await until(() => warnings.length > 0);
  expect(warnings).toEqual(['systemd was not told']);
});
