/** What answers of an object store mean, where their names alone do not tell. */
import { expect, it } from 'vitest';
import { objectsError } from '../../src/store/objects/s3-errors.ts';

const answer = (name: string, message: string) =>
  objectsError(Object.assign(new Error(message), { name, $metadata: { httpStatusCode: 400 } }), {
    ...{ place: 's3://b/c', what: 'put', name: 'packs/x' },
  });

it('a bucket without Object Lock is told as such, whoever says it', () => {
  for (const words of ['Object Lock Configuration', 'ObjectLockConfiguration']) {
    const error = answer('InvalidRequest', `Bucket is missing ${words}`);
    expect([error.code, error.spec.exitCode]).toEqual(['ERR_OBJECTS_NO_LOCK', 6]);
    expect(error.message).toContain('s3://b/c/packs/x');
  }
  expect(answer('InvalidRequest', 'Missing required header').code).toBe('ERR_OBJECTS_DENIED');
});
