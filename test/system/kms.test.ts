/** Keys that a KMS keeps: against moto's KMS, and against a client that refuses in the ways KMS refuses. */

import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { type KmsSender, kmsMaster } from '../../src/store/keys/kms.ts';
import { openRepository } from '../../src/store/offline.ts';
import { startMoto } from '../tools/s3-server.ts';
import { FaultyDisk } from '../unit/support/faulty-disk.ts';
import { readsAs, StoreLife, tinySettings } from '../unit/support/store-life.ts';

const environment = {
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
  AWS_REGION: 'eu-central-1',
};
let moto: Awaited<ReturnType<typeof startMoto>>;
const former = { ...process.env };
beforeAll(async () => {
  moto = await startMoto();
  Object.assign(process.env, environment, { AWS_ENDPOINT_URL: moto.endpoint });
}, 300_000);
afterAll(async () => {
  for (const name of [...Object.keys(environment), 'AWS_ENDPOINT_URL']) {
    if (former[name] === undefined) delete process.env[name];
    else process.env[name] = former[name];
  }
  await moto.stop();
});

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

async function newKey(): Promise<string> {
  const { KeyMetadata } = await new KMSClient({}).send(new CreateKeyCommand({}));
  return KeyMetadata!.KeyId!;
}

describe('a repository under a KMS key', () => {
  it('is made, opened again, and not opened by another key', async () => {
    const keyId = await newKey();
    const disk = new FaultyDisk();
    const life = new StoreLife(disk, 5);
    const keys = { master: kmsMaster(keyId) };
    await life.open(tinySettings, { keys });
    const ingest = await life.connect();
    const point = await life.writeAndCommit(ingest);
    await life.store!.seal(point.id);
    await life.store!.close();
    disk.reopen();
    const again = { master: kmsMaster(keyId) };
    const offline = await openRepository('/data', silentLog, disk.mount(), again);
    expect(await readsAs(offline as never, point)).toBe(true);
    await offline.close();
    const text = disk
      .files('/data/repo/keys')
      .map((path) => Buffer.from(disk.peek(path)).toString())
      .join();
    expect(text).toContain(keyId);
    const other = { master: kmsMaster(await newKey()) };
    const code = await codeOf(openRepository('/data', silentLog, disk.mount(), other));
    expect(code).toMatch(/ERR_KEY_WRONG|ERR_KEY_DENIED/);
    const unknown = { master: kmsMaster('alias/nobody') };
    expect(await codeOf(openRepository('/data', silentLog, disk.mount(), unknown))).toMatch(
      /ERR_KEY_DENIED|ERR_KEY_WRONG/,
    );
  }, 120_000);

  it.each([
    ['AccessDeniedException', 'ERR_KEY_DENIED'],
    ['DisabledException', 'ERR_KEY_DENIED'],
    ['ThrottlingException', 'ERR_KEY_UNAVAILABLE'],
    ['TimeoutError', 'ERR_KEY_UNAVAILABLE'],
    ['CredentialsProviderError', 'ERR_KEY_DENIED'],
  ])('is refused with one clear error: %s', async (name, code) => {
    const refusing = {
      send: async () => {
        throw Object.assign(new Error('no'), { name });
      },
    } as unknown as KmsSender;
    const master = kmsMaster('alias/backup', refusing);
    const context = { repository: '0'.repeat(32), purpose: 'names' };
    const info = { kind: 'kms', keyId: 'k', blob: 'AAAA' } as const;
    expect(await codeOf(master.unwrap(info, context))).toBe(code);
    expect(await codeOf(master.wrap(context))).toBe(code);
    const life = new StoreLife(new FaultyDisk(), 5);
    expect(await codeOf(life.open(tinySettings, { keys: { master } }))).toBe(code);
  });

  it('is another one where the ciphertext is not of this key', async () => {
    const wrong = {
      send: async () => {
        throw Object.assign(new Error('no'), { name: 'IncorrectKeyException' });
      },
    } as unknown as KmsSender;
    const info = { kind: 'kms', keyId: 'k', blob: 'AAAA' } as const;
    const context = { repository: '0'.repeat(32), purpose: 'names' };
    expect(await kmsMaster('k', wrong).unwrap(info, context)).toBe(null);
  });
});
