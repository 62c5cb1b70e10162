/**
 * compare-locks.ts LOCK INSTALLED: exit 0 where node_modules holds what package-lock.json asks for
 * (packages for other platforms may be missing), else 1.
 */
import { readFileSync } from 'node:fs';

interface Locked {
  version?: string;
  optional?: boolean;
}
const packagesOf = (path: string): Record<string, Locked> =>
  (JSON.parse(readFileSync(path, 'utf8')) as { packages: Record<string, Locked> }).packages;

const [lockPath, installedPath] = process.argv.slice(2);
if (lockPath === undefined || installedPath === undefined) process.exit(2);
const installed = packagesOf(installedPath);
const differs = Object.entries(packagesOf(lockPath)).some(([name, wanted]) => {
  if (name === '') return false;
  const held = installed[name];
  return held === undefined ? wanted.optional !== true : held.version !== wanted.version;
});
process.exit(differs ? 1 : 0);
