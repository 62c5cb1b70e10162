/**
 * Words that fit no command, told plainly: what is not known, what was probably meant, and which --help
 * says more. Pure; knows commands as data and no parser.
 */
import { allCommands, type CommandGroup, type CommandSpec } from './command.ts';

/** How far the words lead: a command, or the family (null: the program itself) that was reached. */
interface Reached {
  /** `understudy point list`. */
  readonly words: string;
  readonly command: CommandSpec | null;
  /** What may follow where no command was reached. */
  readonly next: readonly string[];
  /** The first word that leads nowhere. */
  readonly stray: string | undefined;
}

const PROGRAM = 'understudy';

function reach(groups: readonly CommandGroup[], words: readonly string[]): Reached {
  const commands = groups.flatMap(allCommands);
  const known: string[] = [];
  const typed = words.filter((word) => !word.startsWith('-'));
  for (const word of typed) {
    const path = [...known, word];
    const fits = commands.filter((command) => path.every((part, at) => command.path[at] === part));
    if (fits.length === 0) break;
    known.push(word);
    const command = fits.find(({ path: whole }) => whole.length === known.length);
    if (command !== undefined) {
      return { words: [PROGRAM, ...known].join(' '), command, next: [], stray: undefined };
    }
  }
  const within = commands.filter(({ path }) => known.every((part, at) => path[at] === part));
  return {
    words: [PROGRAM, ...known].join(' '),
    command: null,
    next: [...new Set(within.map(({ path }) => path[known.length]!))],
    stray: typed[known.length],
  };
}

/** Letters to change, add, leave out or swap with their neighbour. */
function distance(left: string, right: string): number {
  const rows = Array.from({ length: left.length + 1 }, (_, at) => [at]);
  for (let column = 0; column <= right.length; column += 1) rows[0]![column] = column;
  for (let i = 1; i <= left.length; i += 1) {
    for (let j = 1; j <= right.length; j += 1) {
      const isSame = left[i - 1] === right[j - 1];
      const steps = [
        rows[i - 1]![j]! + 1,
        rows[i]![j - 1]! + 1,
        rows[i - 1]![j - 1]! + (isSame ? 0 : 1),
      ];
      if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]) {
        steps.push(rows[i - 2]![j - 2]! + 1);
      }
      rows[i]![j] = Math.min(...steps);
    }
  }
  return rows[left.length]![right.length]!;
}

/** The candidate that differs by a slip of the hand, if there is one. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const most = word.length > 4 ? 2 : 1;
  const found = candidates
    .map((candidate) => ({ candidate, by: distance(word, candidate) }))
    .sort((left, right) => left.by - right.by)[0];
  return found !== undefined && found.by <= most ? found.candidate : undefined;
}

/** "understudy point list --help": where the words that were typed are explained. */
export const helpFor = (groups: readonly CommandGroup[], words: readonly string[]): string =>
  `${reach(groups, words).words} --help`;

const meant = (word: string | undefined, sign = ''): string =>
  word === undefined ? '' : `; did you mean ${sign}${word}?`;

function unknownOption(reached: Reached, name: string, common: readonly string[]): string {
  const names = [...(reached.command?.options ?? []).map((option) => option.name), ...common];
  return `${reached.words} has no option --${name}${meant(nearest(name, names), '--')}`;
}

/** What is missing after the words that were typed: a command, or a word that it needs. */
export function missingWords(groups: readonly CommandGroup[], words: readonly string[]): string {
  const reached = reach(groups, words);
  const wanted = (reached.command?.positionals ?? []).filter(
    ({ isOptional }) => isOptional !== true,
  );
  if (reached.command !== null && wanted.length > 0) {
    const names = wanted.map(({ name, describe }) => `<${name}> (${describe})`).join(' and ');
    return `${reached.words} needs ${names}`;
  }
  if (reached.words === PROGRAM) return 'a command is missing';
  return `${reached.words} needs a command: ${reached.next.join(', ')}`;
}

/** `unknown`: names (without dashes) that no command or option has; `common`: options of all commands. */
export function unknownWords(
  groups: readonly CommandGroup[],
  words: readonly string[],
  unknown: readonly string[],
  common: readonly string[],
): string {
  const reached = reach(groups, words);
  const [name = ''] = unknown;
  const isOption = words.some(
    (word) => word.replace(/=.*/s, '').replace(/^--?/, '') === name && word.startsWith('-'),
  );
  // Before a command is known, nothing is known of its options.
  const isCommandKnown = reached.command !== null || reached.stray === undefined;
  if (isOption && isCommandKnown) return unknownOption(reached, name, common);
  if (reached.command !== null) return `${reached.words} does not take "${name}"`;
  const stray = reached.stray ?? name;
  const list = reached.words === PROGRAM ? '' : ` (${reached.next.join(', ')})`;
  return `${reached.words} has no command "${stray}"${list}${meant(nearest(stray, reached.next))}`;
}
