/**
 * A real S3 server for tests: moto's, from PyPI, in a Python environment that is made once below
 * test/.cache (exact versions: s3-server-requirements.txt). Listens on a free port of loopback and ends
 * with the test.
 *
 * To run the same tests against another server that runs already:
 *
 *   TEST_S3_ENDPOINT=http://127.0.0.1:7070 AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... vitest run ...
 *
 * Buckets are made, and with what is in them left to the server's owner.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CreateBucketCommand, PutBucketVersioningCommand, S3Client } from '@aws-sdk/client-s3';

const requirements = join(import.meta.dirname, 's3-server-requirements.txt');
const cache = resolve(import.meta.dirname, '../.cache');
const START_MS = 60_000;

export interface S3Server {
  readonly endpoint: string;
  /** A client of its own, for what a test does beside the code under test. */
  readonly client: S3Client;
  /** Of moto: a function that another server lacks may be left out of a test. */
  readonly isMoto: boolean;
  makeBucket(kind?: 'plain' | 'versioned' | 'locked'): Promise<string>;
  stop(): Promise<void>;
}

/** Made under another name and then renamed: a half-made one is never used. */
function environment(): string {
  const version = createHash('sha256').update(readFileSync(requirements)).digest('hex');
  const folder = join(cache, `s3-server-${version.slice(0, 12)}`);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const made = `${folder}.${process.pid}`;
  try {
    execFileSync('python3', ['-m', 'venv', made], { stdio: 'pipe' });
    const install = ['-m', 'pip', 'install', '-q', '--no-deps', '-r', requirements];
    execFileSync(join(made, 'bin/python'), install, { stdio: 'pipe' });
    if (!existsSync(folder)) renameSync(made, folder);
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
  return folder;
}

/** One request at a time: moto's conditional puts are not safe from one another. */
const START = `
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
app = DomainDispatcherApplication(create_backend_app)
run_simple('127.0.0.1', 0, app, threaded=False)
`;

export async function startMoto(): Promise<{ endpoint: string; stop: () => Promise<void> }> {
  const python = join(environment(), 'bin/python');
  const child = spawn(python, ['-c', START], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PYTHONUNBUFFERED: '1' },
  });
  const killAtExit = () => child.kill('SIGKILL');
  process.once('exit', killAtExit);
  const stop = async () => {
    process.off('exit', killAtExit);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((end) => child.once('exit', end));
    child.kill('SIGKILL');
    await ended;
  };
  try {
    return { endpoint: await told(child), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The address that the server prints. */
function told(child: ChildProcess): Promise<string> {
  return new Promise((tell, fail) => {
    let text = '';
    const timer = setTimeout(() => fail(new Error(`no S3 server: ${text}`)), START_MS);
    const hear = (data: Buffer) => {
      text = (text + data.toString()).slice(-4000);
      const address = /Running on (http:\/\/127\.0\.0\.1:\d+)/.exec(text)?.[1];
      if (address === undefined) return;
      clearTimeout(timer);
      tell(address);
    };
    child.stdout!.on('data', hear);
    child.stderr!.on('data', hear);
    child.once('error', fail);
    child.once('exit', () => {
      clearTimeout(timer);
      fail(new Error(`the S3 server has ended: ${text}`));
    });
  });
}

export async function startS3(): Promise<S3Server> {
  const given = process.env.TEST_S3_ENDPOINT;
  const isMoto = given === undefined;
  process.env.AWS_ACCESS_KEY_ID ??= 'test';
  process.env.AWS_SECRET_ACCESS_KEY ??= 'test';
  const { endpoint, stop } = isMoto
    ? await startMoto()
    : { endpoint: given, stop: async () => undefined };
  const client = new S3Client({ endpoint, forcePathStyle: true, region: 'us-east-1' });
  return {
    ...{ endpoint, client, isMoto },
    async makeBucket(kind = 'plain') {
      const Bucket = `test-${randomBytes(6).toString('hex')}`;
      const isLocked = kind === 'locked';
      await client.send(new CreateBucketCommand({ Bucket, ObjectLockEnabledForBucket: isLocked }));
      if (kind === 'versioned') {
        const VersioningConfiguration = { Status: 'Enabled' } as const;
        await client.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration }));
      }
      return Bucket;
    },
    async stop() {
      client.destroy();
      await stop();
    },
  };
}
