/**
 * The shape of the project, held by machine: who may import whom, no circles, pure modules, sizes, dead files, tests
 * that do not run, and a README that tells the truth about errors.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { errorTable } from '../../scripts/lib/error-table.ts';

const root = resolve(import.meta.dirname, '../..');

function filesUnder(folder: string, pattern: RegExp): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      // What other tests build lies there, and comes and goes while they do.
      if (entry.isDirectory()) return entry.name === '.cache' ? [] : filesUnder(path, pattern);
      return entry.isFile() && pattern.test(entry.name) ? [path] : [];
    })
    .sort();
}

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const withoutComments = (text: string): string =>
  text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[^:'"])\/\/.*$/gm, '$1');
const sources = filesUnder('src', /\.ts$/);
const code = new Map(sources.map((path) => [path, withoutComments(read(path))]));

/** Paths named by import and export statements, dynamic imports, and URLs of worker scripts. */
function importsOf(text: string): string[] {
  const found = [
    ...text.matchAll(/\b(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g),
    ...text.matchAll(/new URL\(\s*['"`](\.[^'"`$]+)/g),
  ];
  return found.map((match) => match[1]!);
}

/** The project's file that a relative import means, if any. */
function target(from: string, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined;
  const path = join(dirname(from), specifier);
  return [path, `${path}.ts`, path.replace(/\.js$/, '.ts')].find((candidate) =>
    code.has(candidate),
  );
}

const targetsOf = (path: string, text: string): string[] =>
  importsOf(text).flatMap((specifier) => target(path, specifier) ?? []);

/** What is in a circle, or between two. */
function circles(imports: readonly [string, string[]][]): string[] {
  const left = new Map(imports);
  // What imports nothing that is left, or is imported by nothing that is left, is in no circle.
  for (let before = -1; before !== left.size; ) {
    before = left.size;
    const imported = new Set([...left.values()].flat());
    for (const [path, targets] of left) {
      if (!imported.has(path) || !targets.some((to) => left.has(to))) left.delete(path);
    }
  }
  return [...left.keys()];
}

const layerOf = (path: string): string => path.split('/')[1]!;

const mayImport: Record<string, readonly string[]> = {
  base: [],
  model: ['base'],
  native: ['base', 'model'],
  protocol: ['base', 'model'],
  transport: ['base', 'protocol'],
  store: ['base', 'model'],
  agent: ['base', 'model', 'native', 'protocol', 'transport'],
  staging: ['base', 'model', 'protocol', 'transport', 'store', 'recovery'],
  recovery: ['base', 'model', 'store'],
  cli: [
    'base',
    'model',
    'native',
    'protocol',
    'transport',
    'store',
    'agent',
    'staging',
    'recovery',
  ],
};

const offenders = (isWrong: (path: string, text: string) => boolean): string[] =>
  [...code].filter(([path, text]) => isWrong(path, text)).map(([path]) => path);

describe('layers', () => {
  it('import only what they may', () => {
    const wrong: string[] = [];
    for (const [path, text] of code) {
      const allowed = mayImport[layerOf(path)];
      if (allowed === undefined) wrong.push(`${path}: no layer of that name`);
      for (const specifier of importsOf(text)) {
        const to = target(path, specifier);
        if (to === undefined || layerOf(to) === layerOf(path)) continue;
        if (!allowed?.includes(layerOf(to))) wrong.push(`${path} imports ${to}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('no file stands in a circle of imports, of types or of code', () => {
    const imports = [...code].map(([path, text]): [string, string[]] => [
      path,
      targetsOf(path, text),
    ]);
    expect(circles(imports)).toEqual([]);
  });

  it.each(['store', 'staging', 'recovery'])('the folders of %s stand on each other', (layer) => {
    const room = (path: string) => path.split('/').slice(0, 3).join('/');
    const rooms = new Map<string, string[]>();
    for (const [path, text] of code) {
      if (layerOf(path) !== layer) continue;
      const others = targetsOf(path, text).filter((to) => layerOf(to) === layer);
      const beneath = others.map(room).filter((other) => other !== room(path));
      rooms.set(room(path), [...(rooms.get(room(path)) ?? []), ...beneath]);
    }
    expect(circles([...rooms])).toEqual([]);
  });

  it.each([
    ['ws', /^src\/transport\//],
    ['yargs', /^src\/cli\/adapter\.ts$/],
    ['node:sqlite', /^src\/store\//],
    ['@aws-sdk/client-kms', /^src\/store\/keys\/kms\.ts$/],
    ['@aws-sdk/client-s3', /^src\/store\/objects\//],
    ['@aws-sdk/client-ebs', /^src\/recovery\/ec2\//],
    ['@aws-sdk/client-ec2', /^src\/recovery\/ec2\//],
  ])('only one place imports %s', (name, place) => {
    const wrong = offenders((path, text) => importsOf(text).includes(name) && !place.test(path));
    expect(wrong).toEqual([]);
  });

  it('only src/native names the addon', () => {
    const wrong = offenders((path, text) => /\.node['"`]/.test(text) && layerOf(path) !== 'native');
    expect(wrong).toEqual([]);
  });

  it('only the main file calls process.exit', () => {
    const wrong = offenders(
      (path, text) => /process\.exit\(/.test(text) && path !== 'src/cli/main.ts',
    );
    expect(wrong).toEqual([]);
  });

  it('durable names and syncs are made in one module', () => {
    const called = /\b(?:fsync|fdatasync|rename|link)(?:Sync)?\(/;
    const asMethod = /\b(?:disk|nodeDisk)\??\.(?:rename|link)\(/g;
    const wrong = offenders((path, text) => {
      const calls = text.replace(asMethod, '').replace(/^\s*(?:async )?(?:rename|link)\(.*$/gm, '');
      return called.test(calls) && path !== 'src/base/node-disk.ts' && importsOf(text).some(isFs);
    });
    expect(wrong).toEqual([]);
  });

  it('nothing above base asks the system for the time', () => {
    const asks = /\b(?:Date\.now|performance\.now|setTimeout|setInterval)\(|\bnew Date\(\)/;
    expect(offenders((path, text) => layerOf(path) !== 'base' && asks.test(text))).toEqual([]);
  });

  it('pure modules neither do input nor output, nor ask for chance', () => {
    const isPure = (path: string) =>
      ['model', 'protocol'].includes(layerOf(path)) || /-state\.ts$/.test(path);
    const impure = /^node:(?:fs|net|http|https|tls|child_process|worker_threads|os|timers)/;
    const wrong = offenders(
      (path, text) =>
        isPure(path) &&
        (importsOf(text).some((name) => impure.test(name)) ||
          /Math\.random|randomBytes/.test(text)),
    );
    expect(wrong).toEqual([]);
  });
});

function isFs(name: string): boolean {
  return /^node:fs/.test(name);
}

describe('dead files', () => {
  it('every source file is reached from the program or is a worker that it starts', () => {
    const reached = new Set<string>();
    const queue = ['src/cli/main.ts'];
    for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
      if (reached.has(path)) continue;
      reached.add(path);
      for (const specifier of importsOf(code.get(path)!)) {
        const to = target(path, specifier);
        if (to !== undefined) queue.push(to);
      }
    }
    expect(sources.filter((path) => !reached.has(path))).toEqual([]);
  });
});

const everything = [
  ...filesUnder('src', /\.ts$/),
  ...filesUnder('native', /\.(?:c|cc|h)$/),
  ...filesUnder('scripts', /^(?!.*\.(?:json|md)$)/),
  ...filesUnder('test', /\.(?:ts|c)$/),
];

/** Blocks of functions: where one begins, and how many lines it has. Relies on the formatter's indents. */
function functionsOf(text: string): { line: number; length: number }[] {
  const lines = text.split('\n');
  const found: { line: number; length: number }[] = [];
  lines.forEach((line, at) => {
    if (!/(?:\)|=>|\): [^=]+) \{$/.test(line)) return;
    const indent = /^\s*/.exec(line)![0];
    const end = lines.findIndex((other, to) => to > at && other.startsWith(`${indent}}`));
    if (end > at) found.push({ line: at + 1, length: end - at + 1 });
  });
  return found;
}

describe('sizes', () => {
  it('files have at most 500 lines', () => {
    const wrong = everything.filter((path) => read(path).split('\n').length > 501);
    expect(wrong).toEqual([]);
  });

  it('functions have at most 70 lines', () => {
    const wrong = [...sources, ...filesUnder('scripts', /\.ts$/)].flatMap((path) =>
      functionsOf(read(path))
        .filter(({ length }) => length > 70)
        .map(({ line, length }) => `${path}:${line} has ${length}`),
    );
    expect(wrong).toEqual([]);
  });

  it('lines of native code and of TypeScript stay within 120 columns (100 is the aim)', () => {
    const isLong = (line: string) =>
      line.replaceAll('\t', '    ').length > 120 && !/https?:/.test(line);
    const wrong = everything
      .filter((path) => /\.(?:ts|c|cc|h)$/.test(path))
      .flatMap((path) =>
        read(path)
          .split('\n')
          .flatMap((line, at) => (isLong(line) ? [`${path}:${at + 1}`] : [])),
      );
    expect(wrong).toEqual([]);
  });

  it('every source file opens by saying what it is for (of a pair, the header)', () => {
    const opens = /^(?:#!.*\n)?(?:\/\*\*|\/\*|\/\/|\/\/ SPDX.*\n)/;
    const wrong = everything
      .filter((path) => /^(?:src|native)\//.test(path))
      .filter((path) => !(path.endsWith('.cc') && existsSync(join(root, path.replace(/cc$/, 'h')))))
      .filter((path) => !opens.test(read(path)));
    expect(wrong).toEqual([]);
  });
});

describe('nothing is left lying about', () => {
  it('no test is left out', () => {
    const word = /\b(?:it|test|describe)\.(?:only|skip|todo|fails|runIf|skipIf)\b/;
    const wrong = filesUnder('test', /\.ts$/).filter((path) =>
      word.test(withoutComments(read(path))),
    );
    expect(wrong).toEqual([]);
  });

  it('no property is tried with other values each time', () => {
    const wrong = filesUnder('test', /\.ts$/).filter(
      (path) =>
        /\bfrom '(?:fast-check)'/.test(read(path)) && !path.endsWith('support/properties.ts'),
    );
    expect(wrong).toEqual([]);
  });

  it('no error vanishes in an empty catch', () => {
    const empty = /catch\s*(?:\([^)]*\))?\s*\{\s*\}/;
    expect(offenders((_path, text) => empty.test(text))).toEqual([]);
  });
});

describe('README', () => {
  it('has the table of errors that the catalogue gives', () => {
    expect(read('README.md')).toContain(errorTable());
  });
});
