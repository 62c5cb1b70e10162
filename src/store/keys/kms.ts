/**
 * A master key in AWS KMS, and the only place that knows the SDK for it. For each wrapping GenerateDataKey
 * gives a secret and the KMS's own ciphertext of it; Decrypt gives the secret again. The encryption context
 * names repository and purpose: it is in the KMS's log, and its policies can ask for it. The SDK's usual
 * environment and profiles tell region, credentials and endpoint.
 */
import { DecryptCommand, GenerateDataKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { UnderstudyError } from '../../base/errors.ts';
import { KEY_BYTES } from './aead.ts';
import type { MasterKey, WrapContext } from './master.ts';

/** What of the client is used; tests give their own. */
export type KmsSender = Pick<KMSClient, 'send'>;

const MAX_ATTEMPTS = 3;

/** Not this key: another one may be right. */
const WRONG: readonly string[] = ['InvalidCiphertextException', 'IncorrectKeyException'];
/** The KMS has answered, and says no. */
const DENIED: readonly string[] = [
  ...['AccessDeniedException', 'NotFoundException', 'DisabledException', 'ValidationException'],
  ...['KMSInvalidStateException', 'InvalidKeyUsageException', 'UnrecognizedClientException'],
  ...['CredentialsProviderError', 'ExpiredTokenException', 'InvalidSignatureException'],
  ...['InvalidArnException', 'KeyUnavailableException', 'MissingAuthenticationTokenException'],
  ...['IncompleteSignature', 'InvalidClientTokenId', 'ExpiredToken', 'Error'],
];

function kmsError(error: unknown, keyId: string): UnderstudyError {
  const { name = 'Error', message = String(error) } = error as Partial<Error>;
  // Thrown by the SDK itself, before anything was sent: no region, no credentials.
  const isUnsent = name === 'Error' && /region|credential/i.test(message);
  const isDenied = DENIED.includes(name) && (name !== 'Error' || isUnsent);
  const text = `KMS key ${keyId}: ${name}: ${message}`;
  return new UnderstudyError(isDenied ? 'ERR_KEY_DENIED' : 'ERR_KEY_UNAVAILABLE', text, {}, error);
}

const contextOf = ({ repository, purpose }: WrapContext) => ({ repository, purpose });

/** `keyId`: ARN, id or alias. Nothing is asked before a key is wrapped or opened. */
export function kmsMaster(keyId: string, sender?: KmsSender): MasterKey {
  let client = sender;
  const kms = (): KmsSender => {
    client ??= new KMSClient({ maxAttempts: MAX_ATTEMPTS });
    return client;
  };
  const secretOf = (plain: Uint8Array | undefined): Uint8Array => {
    if (plain?.length === KEY_BYTES) return plain;
    throw new UnderstudyError('ERR_KEY_UNAVAILABLE', `KMS key ${keyId}: an answer without a key`);
  };
  return {
    name: `KMS key ${keyId}`,
    kind: 'kms',
    async wrap(context) {
      const input = { KeyId: keyId, KeySpec: 'AES_256', EncryptionContext: contextOf(context) };
      try {
        const answer = await kms().send(
          new GenerateDataKeyCommand({ ...input, KeySpec: 'AES_256' }),
        );
        const secret = secretOf(answer.Plaintext);
        const blob = Buffer.from(answer.CiphertextBlob ?? []).toString('base64');
        return { secret, info: { kind: 'kms', keyId: answer.KeyId ?? keyId, blob } };
      } catch (error) {
        throw error instanceof UnderstudyError ? error : kmsError(error, keyId);
      }
    },
    async unwrap(info, context) {
      if (info.kind !== 'kms') return null;
      const input = {
        KeyId: keyId,
        CiphertextBlob: Buffer.from(info.blob, 'base64'),
        EncryptionContext: contextOf(context),
      };
      try {
        return secretOf((await kms().send(new DecryptCommand(input))).Plaintext);
      } catch (error) {
        if (error instanceof UnderstudyError) throw error;
        if (WRONG.includes((error as Error).name)) return null;
        throw kmsError(error, keyId);
      }
    },
  };
}
