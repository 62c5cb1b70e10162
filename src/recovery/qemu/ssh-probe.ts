/**
 * A probe by ssh: a command runs in the guest, and its exit code is the verdict. The key lies in a folder
 * of the staging machine that only its operator writes to; the guest's host key is whatever it is (it is
 * reached through a port of this machine's own), and nothing of the caller's ssh settings is used.
 */
import { spawn } from 'node:child_process';
import { plain } from '../plain-text.ts';
import { missingProgram } from './programs.ts';

const LIMIT_MS = 30_000;
const SHOWN_CHARACTERS = 200;
/** ssh itself has failed: it does not answer (yet), or refuses the key. */
const NO_SSH = 255;

export interface SshQuestion {
  readonly user: string;
  readonly run: string;
  readonly keyPath: string;
  /** On this machine's loopback. */
  readonly hostPort: number;
  readonly signal: AbortSignal;
}

export interface SshAnswer {
  readonly isGood: boolean;
  readonly detail: string;
}

export const sshWords = ({ user, run, keyPath, hostPort }: SshQuestion): string[] => [
  ...['-F', 'none', '-T', '-i', keyPath, '-p', String(hostPort), '-l', user],
  ...[
    ...['BatchMode=yes', 'IdentitiesOnly=yes', 'StrictHostKeyChecking=no', 'LogLevel=ERROR'],
    ...['UserKnownHostsFile=/dev/null', 'GlobalKnownHostsFile=/dev/null', 'ConnectTimeout=10'],
    ...['ClearAllForwardings=yes', 'ForwardAgent=no', 'ForwardX11=no', 'UpdateHostKeys=no'],
  ].flatMap((option) => ['-o', option]),
  ...['127.0.0.1', '--', run],
];

/** Null: it does not answer (yet). ERR_LAUNCH_PROGRAM. */
export function askBySsh(question: SshQuestion): Promise<SshAnswer | null> {
  return new Promise((resolve, reject) => {
    const child = spawn('ssh', sshWords(question), {
      ...{ stdio: ['ignore', 'pipe', 'pipe'], timeout: LIMIT_MS, killSignal: 'SIGKILL' },
      signal: question.signal,
    });
    let said = '';
    const take = (data: Buffer) => {
      said = (said + data.toString()).slice(0, SHOWN_CHARACTERS);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') reject(missingProgram('ssh', cause));
      else if (question.signal.aborted) resolve(null);
      else reject(cause);
    });
    child.on('close', (code) => {
      const words = plain(said.trim().replace(/\s*\n\s*/g, '; '));
      const text = words === '' ? '' : `: ${words}`;
      if (code === 0) resolve({ isGood: true, detail: `the command has succeeded${text}` });
      else if (code === null) resolve({ isGood: false, detail: 'the command does not end' });
      else if (code === NO_SSH)
        resolve(words === '' ? null : { isGood: false, detail: `ssh${text}` });
      else resolve({ isGood: false, detail: `the command ended with ${code}${text}` });
    });
  });
}
