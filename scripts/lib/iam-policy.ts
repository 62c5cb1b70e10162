/**
 * The IAM policy for the EC2 target; a test holds the file to it.
 *   iam-policy.ts [--write]   prints the policy, or puts it into install/aws/iam-policy.json
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { iamPolicyText } from '../../src/recovery/ec2/iam-policy.ts';

if (process.argv[2] === '--write') {
  const path = join(import.meta.dirname, '../../install/aws/iam-policy.json');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, iamPolicyText());
} else {
  process.stdout.write(iamPolicyText());
}
