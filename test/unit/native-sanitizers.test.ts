// The C++ pieces under AddressSanitizer and UndefinedBehaviorSanitizer; what they check is in
// test/native.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const script = join(import.meta.dirname, '..', '..', 'scripts', 'check-native');

it('the C++ pieces hold, killed at every store, and the sanitizers are silent', () => {
  const output = execFileSync(script, { encoding: 'utf8', timeout: 900_000 });
  expect(output).toContain('ok killed at any store of a harvest, no mark is lost');
}, 900_000);
