/**
 * Kernel modules by their names: modules.dep as depmod writes it ("path: paths it needs"), the list of what
 * is built in. A name has no folder, no suffix, and "_" where the file has "-". Pure; whatever the text,
 * an answer comes.
 */

/** ".ko", and how it may be packed. */
const SUFFIX = /\.ko(?:\.(?:gz|xz|zst|bz2|lzma))?$/;

/** Null where it is no module. */
export function moduleName(path: string): string | null {
  const file = path.slice(path.lastIndexOf('/') + 1);
  return SUFFIX.test(file) ? file.replace(SUFFIX, '').replaceAll('-', '_') : null;
}

export interface ModuleList {
  /** Path below lib/modules/RELEASE, by name. */
  readonly pathOf: ReadonlyMap<string, string>;
  /** Names that must be loaded before; the nearest first, as in the file. */
  readonly needs: ReadonlyMap<string, readonly string[]>;
}

export function parseDependencies(text: string): ModuleList {
  const pathOf = new Map<string, string>();
  const needs = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    const path = line.slice(0, Math.max(0, colon)).trim();
    const name = moduleName(path);
    if (name === null) continue;
    pathOf.set(name, path);
    const names = line
      .slice(colon + 1)
      .split(/\s+/)
      .map(moduleName);
    needs.set(
      name,
      names.filter((each) => each !== null),
    );
  }
  return { pathOf, needs };
}

/** Names in modules.builtin. */
export const parseBuiltIn = (text: string): Set<string> =>
  new Set(
    text
      .split('\n')
      .map((line) => moduleName(line.trim()))
      .filter((name) => name !== null),
  );

/** `names` that are modules, and all that they need, in an order in which they can be loaded. */
export function withNeeds({ pathOf, needs }: ModuleList, names: readonly string[]): string[] {
  const order: string[] = [];
  const seen = new Set<string>();
  const add = (name: string): void => {
    if (seen.has(name) || !pathOf.has(name)) return;
    seen.add(name);
    // depmod lists all that is needed, the farthest last.
    for (const needed of [...(needs.get(name) ?? [])].reverse()) add(needed);
    order.push(name);
  };
  names.forEach(add);
  return order;
}
