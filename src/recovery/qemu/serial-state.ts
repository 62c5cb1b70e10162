/**
 * A command over the serial line: what to type next, by what the guest has said and how long it has been
 * quiet. Pure: (state, event, now) -> state and effects; serial-probe.ts holds the line and the secret.
 *
 *   greeting --login prompt--> user --asks for a password--> password --+--> shell --sign--> running
 *      |                         +--------- lets in at once ------------+      ^                |
 *      +---- no login prompt: a shell is there already ------------------------+      leaving <-+
 *
 * - An empty line comes first: whoever answers it answers us, at the prompt of now.
 * - A shell is known by a sign, asked for again and again, which the echo of what was typed cannot show: it
 *   is put together of parts, and holds a random mark. The command is typed once. Its end and exit code come
 *   with the same mark.
 * - What the kernel and systemd say in between, at whatever place, is no part of the talk. A prompt counts
 *   when nothing else has been said for a while.
 * - Where we have logged in we log out: whoever comes to the line next finds it as it was.
 * - A guest that shows the password where it should not is not quoted with it.
 */
import { isInterrupted, shownLine, undisturbed } from './console-state.ts';

export interface SerialQuestion {
  readonly user: string;
  /** One line. */
  readonly run: string;
  /** Null: none. */
  readonly password: string | null;
  /** Letters and digits that nobody can guess. */
  readonly mark: string;
}

type Step = 'greeting' | 'user' | 'password' | 'shell' | 'running' | 'leaving' | 'ended';

export interface SerialState {
  readonly question: SerialQuestion;
  readonly step: Step;
  /** What was said in this step; the end of it. */
  readonly said: string;
  readonly sinceMs: number;
  /** When something was said that counts. */
  readonly heardMs: number;
  /** We have logged in, and so log out. */
  readonly isOurs: boolean;
  /** How often the same was asked for in this step. */
  readonly tries: number;
  /** The command has begun: `said` is what it says. */
  readonly hasBegun: boolean;
  readonly answer: SerialAnswer | null;
}

export interface SerialAnswer {
  readonly isGood: boolean;
  /** Nothing better is to be hoped for. */
  readonly isLast: boolean;
  readonly detail: string;
  /** What the command said; null where it was not run. */
  readonly output: string | null;
}

export type SerialEvent =
  | { readonly type: 'open' }
  | { readonly type: 'heard'; readonly text: string }
  | { readonly type: 'time' }
  /** Nobody waits for the answer any more. */
  | { readonly type: 'close' };

export type SerialEffect =
  | { readonly type: 'type'; readonly text: string }
  | { readonly type: 'end'; readonly answer: SerialAnswer };

export interface SerialTurn {
  readonly state: SerialState;
  readonly effects: readonly SerialEffect[];
}

const ENTER = '\r';
const INTERRUPT = '\x03';
/** Longer than a loaded guest pauses within a line. */
const SETTLE_MS = 800;
/** A prompt stands in a line of its own; without one, so long a silence counts as one. */
const STILL_MS = 10_000;
/** Behind the password a question counts after so long a silence. */
const ASKS_MS = 4000;
const ASK_AGAIN_MS = 5000;
export const RUN_MS = 60_000;
const limitMs: Readonly<Record<Step, number>> = {
  ...{ greeting: 20_000, user: 60_000, password: 60_000, shell: 60_000, running: RUN_MS },
  ...{ leaving: 5000, ended: 0 },
};
const MAX_SAID = 65_536;
const MOST_NAMES = 2;
/** The tty takes 4095 bytes as a line, and some of them are ours. */
export const MAX_COMMAND_BYTES = 3000;

const LOGIN = /\blogin: ?$/;
const REFUSED = new RegExp(
  '[^\\n]*(?:login incorrect|authentication (?:failure|error)|(?:permission|access) denied|login failed|' +
    'account (?:is )?(?:locked|disabled|expired)|has expired|not allowed)[^\\n]*',
  'i',
);
const NOT_YET = /[^\n]*(?:not permitted to log in yet|system is (?:booting up|going down))[^\n]*/i;
/** A question, and no prompt of a shell: "Password:", "Current password: ", "Verification code:". */
const ASKS = /[:?] ?$/;

export function openSerial(question: SerialQuestion, nowMs: number): SerialState {
  return {
    ...{ question, step: 'greeting', said: '', sinceMs: nowMs, heardMs: nowMs, isOurs: false },
    ...{ tries: 0, hasBegun: false, answer: null },
  };
}

export function serialTransition(
  state: SerialState,
  event: SerialEvent,
  nowMs: number,
): SerialTurn {
  if (state.step === 'ended') return still(state);
  if (event.type === 'open') return typed(state, ENTER);
  if (event.type === 'close') return closed(state);
  const heard = event.type === 'heard' ? take(state, event.text, nowMs) : state;
  const turn = decide(heard, nowMs);
  if (turn !== null) return turn;
  if (nowMs - state.sinceMs > limitMs[state.step]) return tooLate(heard, nowMs);
  return still(heard);
}

function take(state: SerialState, text: string, nowMs: number): SerialState {
  const said = state.said + text;
  const words = undisturbed(said);
  // What is interrupted goes on behind the interruption.
  const isNews = words !== undisturbed(state.said) || isInterrupted(said);
  const hasBegun = state.hasBegun || words.includes(beginOf(state.question));
  return { ...state, said, hasBegun, heardMs: isNews ? nowMs : state.heardMs };
}

const still = (state: SerialState): SerialTurn => ({
  state: { ...state, said: state.said.slice(-MAX_SAID) },
  effects: [],
});
const typed = (state: SerialState, text: string): SerialTurn => ({
  state,
  effects: [{ type: 'type', text }],
});

/** What is said from here on belongs to the next step. */
const to = (state: SerialState, step: Step, nowMs: number): SerialState => ({
  ...{ ...state, step, said: '', sinceMs: nowMs, heardMs: nowMs, tries: 1 },
});

function ended(state: SerialState, answer: SerialAnswer): SerialTurn {
  return { state: { ...state, step: 'ended', answer }, effects: [{ type: 'end', answer }] };
}
const failed = (state: SerialState, detail: string, isLast: boolean): SerialTurn =>
  ended(state, { isGood: false, isLast, detail, output: null });

/** The line in which the cursor stands. */
const lineOf = (text: string): string => text.slice(text.lastIndexOf('\n') + 1);
const lastWords = (text: string): string =>
  text.split('\n').findLast((line) => line.trim() !== '') ?? '';

/** For people. */
const hide = ({ password }: SerialQuestion, text: string): string =>
  password === null ? text : text.replaceAll(password, '*'.repeat(password.length));
const shown = (question: SerialQuestion, text: string): string => shownLine(hide(question, text));

/** Null: nothing yet. */
function decide(state: SerialState, nowMs: number): SerialTurn | null {
  const said = undisturbed(state.said);
  if (state.step === 'running') return running(state, said, nowMs);
  if (state.step === 'leaving') {
    return LOGIN.test(lineOf(said)) && isQuiet(state, nowMs) ? ended(state, state.answer!) : null;
  }
  // Its parts are told apart by the echo, which shows them with blanks between.
  if (state.step === 'shell' && said.includes(signOf(state.question))) return begin(state, nowMs);
  if (!isQuiet(state, nowMs)) return null;
  if (state.step === 'greeting') return greeted(state, said, nowMs);
  return answered(state, said, nowMs);
}

const isQuiet = ({ heardMs }: SerialState, nowMs: number): boolean => nowMs - heardMs >= SETTLE_MS;

function greeted(state: SerialState, said: string, nowMs: number): SerialTurn | null {
  const line = lineOf(said);
  if (LOGIN.test(line)) return giveName(state, nowMs);
  // A name that somebody has typed is asked for its password: our empty line was that.
  if (line.trim() === '' || ASKS.test(line)) return null;
  return askForSign(state, nowMs);
}

function giveName(state: SerialState, nowMs: number): SerialTurn {
  return typed(to(state, 'user', nowMs), `${state.question.user}${ENTER}`);
}

/** After a name, after a password, before the sign of a shell. */
function answered(state: SerialState, said: string, nowMs: number): SerialTurn | null {
  const line = lineOf(said);
  if (LOGIN.test(line)) return backAtLogin(state, said, nowMs);
  // A script of the login may say "Loading modules:" and go on.
  const isPatient = state.step !== 'user' && nowMs - state.heardMs < ASKS_MS;
  if (ASKS.test(line)) return isPatient ? null : asked(state, line, nowMs);
  if (state.step === 'shell') return askAgain(state, nowMs);
  return hasPrompt(state, said, nowMs) ? askForSign({ ...state, isOurs: true }, nowMs) : null;
}

function backAtLogin(state: SerialState, said: string, nowMs: number): SerialTurn {
  const { question, step, tries, isOurs } = state;
  const notYet = NOT_YET.exec(said);
  if (notYet !== null) return failed(state, shown(question, notYet[0]), false);
  const why = REFUSED.exec(said);
  // A getty that was started anew has not seen the name.
  if (step === 'user' && why === null && tries < MOST_NAMES) {
    const next = { ...to(state, 'user', nowMs), tries: tries + 1 };
    return typed(next, `${question.user}${ENTER}`);
  }
  // What seemed a shell that was there already was none.
  if (step === 'shell' && !isOurs) return failed(state, 'the serial console shows no shell', false);
  const words = why === null ? '' : `: ${shown(question, why[0])}`;
  return failed(state, `the login of ${question.user} was refused${words}`, true);
}

function asked(state: SerialState, line: string, nowMs: number): SerialTurn {
  const { user, password } = state.question;
  if (state.step !== 'user') {
    const detail = `the login of ${user} asks for more: ${shown(state.question, line)}`;
    return failed(state, detail, state.isOurs || state.step === 'password');
  }
  if (password === null) {
    return failed(state, `the login of ${user} asks for a password, and none was given`, true);
  }
  return typed(to(state, 'password', nowMs), `${password}${ENTER}`);
}

/** Something is said behind the echo of the name: the cursor stands behind a prompt. */
function hasPrompt({ question, heardMs }: SerialState, said: string, nowMs: number): boolean {
  const [first, ...rest] = said.split('\n');
  const words = first!.trim() === question.user ? rest.join('\n') : said;
  if (words.trim() === '') return false;
  return lineOf(words).trim() !== '' || nowMs - heardMs >= STILL_MS;
}

const signOf = ({ mark }: SerialQuestion): string => `sign=${mark};`;

function askForSign(state: SerialState, nowMs: number): SerialTurn {
  return typed(to(state, 'shell', nowMs), signLine(state.question));
}
/** Twice the same line must not be a new password and its repetition: each has a number of its own. */
function signLine({ mark }: SerialQuestion, tries = 1): string {
  return ` printf '\\n%s%s%s;\\n' sign = ${mark} ${'#'.padEnd(tries, '#')}${ENTER}`;
}

function askAgain(state: SerialState, nowMs: number): SerialTurn | null {
  const { tries, sinceMs, question } = state;
  if (nowMs - sinceMs < ASK_AGAIN_MS * tries) return null;
  return typed({ ...state, tries: tries + 1 }, signLine(question, tries + 1));
}

/** For the shell that is typed to. */
export const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** The end three times: the kernel may speak in the middle of one, without saying when. */
function begin(state: SerialState, nowMs: number): SerialTurn {
  const { mark, run } = state.question;
  const script =
    `printf "\\n%s%s%s;\\n" begin = ${mark}; sh -c "$1" </dev/null; s=$?; ` +
    `for i in 1 2 3; do printf "\\n%s%s%s:%s;\\n" end = ${mark} $s; done`;
  const line = ` sh -c ${quoted(script)} sh ${quoted(run)}${ENTER}`;
  return typed(to(state, 'running', nowMs), line);
}

function running(state: SerialState, said: string, nowMs: number): SerialTurn | null {
  const { mark } = state.question;
  const words = behind(said, beginOf(state.question));
  const end = new RegExp(`end=${mark}:(\\d{1,3});`).exec(words);
  if (end === null) return null;
  const output = words.slice(0, words.indexOf(`end=${mark}`)).trim();
  return leave(state, commandAnswer(Number(end[1]), hide(state.question, output)), nowMs);
}

const beginOf = ({ mark }: SerialQuestion): string => `begin=${mark};`;
/** What comes after `word`; all where it is not there (any more). */
const behind = (text: string, word: string): string =>
  text.includes(word) ? text.slice(text.indexOf(word) + word.length) : text;

function commandAnswer(code: number, output: string): SerialAnswer {
  const said = shownLine(output.replace(/\s*\n\s*/g, '; '));
  const isGood = code === 0;
  const what = isGood ? 'the command has succeeded' : `the command ended with ${code}`;
  const detail = said === '' ? what : `${what}: ${said}`;
  return { isGood, isLast: false, detail, output };
}

function leave(state: SerialState, answer: SerialAnswer, nowMs: number): SerialTurn {
  if (!state.isOurs) return ended(state, answer);
  return typed({ ...to(state, 'leaving', nowMs), answer }, `exit${ENTER}`);
}

/** No command of ours runs on, and no shell stays open. */
function closed(state: SerialState): SerialTurn {
  const turn = failed(state, 'it was given up', false);
  const isRunning = state.step === 'running';
  const words = `${isRunning ? INTERRUPT : ''}${state.isOurs ? `exit${ENTER}` : ''}`;
  if (words === '' || state.step === 'leaving') return turn;
  return { ...turn, effects: [{ type: 'type', text: words }, ...turn.effects] };
}

function tooLate(state: SerialState, nowMs: number): SerialTurn {
  const { step, question, hasBegun } = state;
  if (step === 'leaving') return ended(state, state.answer!);
  const said = undisturbed(state.said);
  const last = shown(question, lastWords(said));
  const words = last === '' ? '' : `; the last line: ${last}`;
  if (step === 'greeting') {
    const what = last === '' ? 'does not answer' : 'shows neither a login prompt nor a shell';
    return failed(state, `the serial console ${what}${words}`, false);
  }
  if (step !== 'running') {
    return failed(state, `the login of ${question.user} does not come to a shell${words}`, false);
  }
  const what = hasBegun ? 'the command does not end' : 'the command was not taken';
  const output = hide(question, behind(said, beginOf(question)).trim());
  const answer = { isGood: false, isLast: false, detail: `${what}${words}`, output };
  const turn = leave(state, answer, nowMs);
  return { ...turn, effects: [{ type: 'type', text: INTERRUPT }, ...turn.effects] };
}

/**
 * Is somebody there to talk to? `text`: the end of what the console has said; `quietMs`: so long it has said
 * nothing. A login prompt that was seen counts though something else was said after it.
 */
export function invites(text: string, quietMs: number): boolean {
  if (quietMs < SETTLE_MS) return false;
  const said = undisturbed(text);
  if (/\blogin: ?(?:\S+ \(automatic login\)|\n|$)/.test(said)) return true;
  return quietMs >= 3 * SETTLE_MS && /(?:^|\S ?)[#$] ?$/.test(lineOf(said));
}
