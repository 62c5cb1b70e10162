/**
 * The world of the proof: a staging service with TLS, a Debian disk with our agent installed from its package,
 * and this machine's ears for what the guests report.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createRestClient, type RestClient } from '../../../src/cli/rest-client.ts';
import type { ApiAgentToken, ApiServer } from '../../../src/staging/api-types.ts';
import { makeDebianDisk, putFile, putService } from '../../tools/debian-disk.ts';
import { LedgerReports, ledgerProgram } from '../../tools/ledger.ts';
import { consoleText, Hands, handProgram } from './guest.ts';
import { endAll, freePort } from './machines.ts';
import type { Scratch } from './scratch.ts';
import { Staging } from './understudy.ts';

export const DISK_BYTES = 640 << 20;
export const SERVER = 'ledger';
export const MEMORY = 640;
const checkout = resolve(import.meta.dirname, '../../..');

/** Says what is done, and how long after the start. */
export class Story {
  private readonly beganMs = performance.now();

  tell(text: string): void {
    const seconds = ((performance.now() - this.beganMs) / 1000).toFixed(0);
    console.log(`[${seconds.padStart(3)} s] ${text}`);
  }

  /** A figure, also for scripts/bench-recovery. */
  measure(what: string, result: string, how: string): void {
    this.tell(`${what}: ${result} (${how})`);
    const rows = process.env.PROOF_ROWS;
    if (rows !== undefined) appendFileSync(rows, `| ${what} | ${result} | ${how} |\n`);
  }
}

export interface World {
  readonly scratch: Scratch;
  readonly staging: Staging;
  /** For what is asked again and again: a process each time would slow the guests down. */
  readonly rest: RestClient;
  readonly ledger: LedgerReports;
  readonly hands: Hands;
  readonly disk: string;
  readonly story: Story;
}

export async function makeWorld(scratch: Scratch, story: Story): Promise<World> {
  const [port, ledgerPort, handPort] = await Promise.all([freePort(), freePort(), freePort()]);
  const make = join(checkout, 'install/make-certificate.sh');
  execFileSync(make, [scratch.folder, '127.0.0.1', '10.0.2.2'], { stdio: 'pipe' });
  const authority = scratch.path('staging.pem');
  const staging = await Staging.start(scratch, {
    ...{ listen: `127.0.0.1:${port}`, authority },
    words: ['--tls-cert', authority, '--tls-key', scratch.path('staging.key')],
  });
  scratch.defer(() => endAll(staging.dataFolder));
  const ledger = new LedgerReports(ledgerPort);
  scratch.defer(() => ledger.close());
  const hands = new Hands(handPort);
  scratch.defer(() => hands.close());
  const { token } = await staging.json<ApiAgentToken>('server', 'token', SERVER);
  const disk = scratch.path('source.disk');
  makeDebianDisk({
    ...{ out: disk, workFolder: scratch.path('work'), sizeBytes: DISK_BYTES, hostname: SERVER },
    fill: (tree) => {
      installAgent(tree, scratch, { token: Buffer.from(`${token}\n`), authority, port });
      putFile(tree, '/usr/local/sbin/ledger', ledgerProgram(ledgerPort), 0o755);
      putFile(tree, '/usr/local/sbin/hand', handProgram(handPort), 0o755);
      for (const name of ['ledger', 'hand']) putService(tree, name, service(name));
    },
  });
  story.tell('a Debian disk is made, with the agent installed from its package');
  const rest = await createRestClient({
    ...{ url: staging.url, tokenFile: staging.tokenFile, caFile: authority },
    signal: new AbortController().signal,
  });
  return { scratch, staging, rest, ledger, hands, disk, story };
}

const service = (name: string): string => `[Service]
ExecStart=/usr/local/sbin/${name}
Restart=always
RestartSec=1
[Unit]
StartLimitIntervalSec=0
After=network.target
[Install]
WantedBy=multi-user.target
`;

/** As install/README.md says it, into a tree that does not run yet. */
function installAgent(
  tree: string,
  scratch: Scratch,
  { token, authority, port }: { token: Buffer; authority: string; port: number },
): void {
  const archive = scratch.path('agent.tar');
  const run = (command: string, ...words: string[]) =>
    execFileSync(command, words, {
      stdio: 'pipe',
      env: { ...process.env, TMPDIR: scratch.folder },
    });
  run(join(checkout, 'scripts/package'), 'agent', archive);
  run('tar', '-C', scratch.folder, '-xf', archive);
  const unpacked = readdirSync(scratch.folder).find((name) => name.startsWith('understudy-agent-'));
  run(scratch.path(`${unpacked}/install.sh`), '--root', tree);
  putFile(tree, '/etc/understudy/token', token, 0o600);
  putFile(tree, '/etc/understudy/ca.pem', readFileSync(authority));
  const config = JSON.parse(readFileSync(join(tree, 'etc/understudy/agent.json'), 'utf8'));
  const own = { staging: `https://10.0.2.2:${port}`, server: SERVER, 'cut-interval': '2s' };
  putFile(tree, '/etc/understudy/agent.json', JSON.stringify({ ...config, ...own }), 0o600);
}

/** What the machines of jobs had to say, for a test that fails. */
export function tellConsoles(folder: string): void {
  if (!existsSync(folder)) return;
  for (const id of readdirSync(folder)) {
    const lines = consoleText(join(folder, id, 'console.log'))
      .trimEnd()
      .split('\n');
    console.log(`${id}:\n${lines.slice(-25).join('\n')}`);
  }
}

/** The protected server, as staging sees it; null before its agent has come. */
export async function serverOf({ rest }: World): Promise<ApiServer | null> {
  const { servers } = await rest.call<{ servers: ApiServer[] }>('GET', '/v1/servers');
  return servers.find(({ server }) => server === SERVER) ?? null;
}
