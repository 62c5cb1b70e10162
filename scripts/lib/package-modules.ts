/**
 * package-modules.ts ROOT agent|staging: the folders of node_modules that the program needs at run time, one
 * a line, as the lock file tells. An agent's host gets no AWS SDK; packages of headers go nowhere.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

interface LockedPackage {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
/** By path: "node_modules/cliui/node_modules/string-width"; '' is the project itself. */
type Locked = Readonly<Record<string, LockedPackage>>;

const FOLDER = 'node_modules/';
const isForBuilding = (name: string): boolean => name === 'node-addon-api';
const isForStaging = (name: string): boolean => name.startsWith('@aws-sdk/');

/** Where Node looks for what a package at `from` imports: beside it, then one package further out. */
function resolved(locked: Locked, from: string, name: string): string | undefined {
  const steps = from === '' ? [] : from.split(`/${FOLDER}`);
  for (let count = steps.length; count >= 0; count -= 1) {
    const outer = steps.slice(0, count).join(`/${FOLDER}`);
    const path = `${outer === '' ? '' : `${outer}/`}${FOLDER}${name}`;
    if (locked[path] !== undefined) return path;
  }
  return undefined;
}

/** Packages reached from `names`; one that lies within another's folder comes with that. */
export function closure(locked: Locked, names: readonly string[]): string[] {
  const found = new Set<string>();
  const queue = names.map((name) => ({ from: '', name }));
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const path = resolved(locked, next.from, next.name);
    if (path === undefined || found.has(path)) continue;
    found.add(path);
    const { dependencies, optionalDependencies } = locked[path]!;
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      queue.push({ from: path, name });
    }
  }
  return [...found].filter((path) => path.lastIndexOf(FOLDER) === 0).sort();
}

export function runtimeModules(root: string, role: string): string[] {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const locked = lock.packages as Locked;
  const names = Object.keys(locked['']!.dependencies ?? {})
    .filter((name) => !isForBuilding(name))
    .filter((name) => role !== 'agent' || !isForStaging(name));
  // Of optional packages those of other platforms are not installed.
  return closure(locked, names).filter((path) => existsSync(join(root, path)));
}

const [root, role] = process.argv.slice(2);
if (import.meta.main && root && role) {
  for (const path of runtimeModules(root, role)) process.stdout.write(`${path}\n`);
}
