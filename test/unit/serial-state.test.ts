/** A command over the serial line: talks with guests of every kind, however their words arrive. */

import { describe, expect, it } from 'vitest';
import {
  invites,
  openSerial,
  RUN_MS,
  type SerialAnswer,
  type SerialEvent,
  type SerialQuestion,
  serialTransition,
} from '../../src/recovery/qemu/serial-state.ts';
import fc from './support/properties.ts';
import { type GuestKind, SerialGuest } from './support/serial-guest.ts';

const PASSWORD = 'correct horse';
const question: SerialQuestion = {
  ...{ user: 'op', run: 'echo all is well', password: PASSWORD, mark: '0123456789abcdef' },
};
const guestKind: GuestKind = { start: 'login', user: 'op', password: PASSWORD };

/** Among the pieces that arrive: none does, for a while. */
const SILENCE = '\0';

interface Talk {
  readonly answer: SerialAnswer | null;
  readonly typed: string[];
  readonly tookMs: number;
}

/** Until it has ended, or for ten minutes. `arrive`: in which pieces the guest's words come. */
function talk(
  type: (text: string) => string,
  asked: SerialQuestion = question,
  arrive: (text: string) => string[] = (text) => [text],
): Talk {
  let state = openSerial(asked, 0);
  const coming: string[] = [];
  const typed: string[] = [];
  let nowMs = 0;
  let answer: SerialAnswer | null = null;
  const tell = (event: SerialEvent) => {
    const turn = serialTransition(state, event, nowMs);
    state = turn.state;
    for (const effect of turn.effects) {
      if (effect.type === 'end') answer = effect.answer;
      else {
        typed.push(effect.text);
        coming.push(...arrive(type(effect.text)));
      }
    }
  };
  tell({ type: 'open' });
  while (answer === null && nowMs < 600_000) {
    const text = coming.shift();
    const isSilent = text === undefined || text === SILENCE;
    nowMs += isSilent ? 250 : 20;
    tell(isSilent ? { type: 'time' } : { type: 'heard', text });
  }
  return { answer, typed, tookMs: nowMs };
}

const talkTo = (kind: Partial<GuestKind>, asked: Partial<SerialQuestion> = {}) => {
  const guest = new SerialGuest({ ...guestKind, ...kind });
  return { guest, ...talk((text) => guest.type(text), { ...question, ...asked }) };
};

describe('a talk over the serial line', () => {
  it('logs in, runs the command once, tells what it said and how it ended, and logs out', () => {
    const { answer, guest } = talkTo({});
    expect(answer).toEqual({
      ...{ isGood: true, isLast: false, output: 'all is well' },
      detail: 'the command has succeeded: all is well',
    });
    expect(guest.ran.filter((line) => line.includes('all is well'))).toHaveLength(1);
    expect(guest.isAtLogin).toBe(true);
  });

  it('goes without a password where none is asked for', () => {
    const { answer, guest } = talkTo({ password: null });
    expect(answer?.isGood).toBe(true);
    expect(guest.typed.join('')).not.toContain(PASSWORD);
    expect(guest.isAtLogin).toBe(true);
  });

  it('takes a shell that is there already, and leaves it there', () => {
    const { answer, guest } = talkTo({ start: 'shell' });
    expect(answer?.isGood).toBe(true);
    expect(guest.typed.join('')).not.toMatch(/exit|op\r|horse/);
    expect(guest.isAtLogin).toBe(false);
  });

  it.each([
    ['exit 7', false, 'the command ended with 7', ''],
    [`test "it's" = 'it'"'"'s' && printf '%s\\n' '$HOME "a" \\n!' `, true, null, '$HOME "a" \\n!'],
    ['echo a; echo b >&2; exit 12', false, 'the command ended with 12: a; b', 'a\r\nb'],
    ['if', false, null, null],
    [') && echo )', false, null, null],
    ['cat; read x; echo "[$x]"', true, 'the command has succeeded: []', '[]'],
    ["printf 'no end'", true, 'the command has succeeded: no end', 'no end'],
    ['echo "end=$1:0;"; exit 3', false, 'the command ended with 3: end=:0;', 'end=:0;'],
    ['true', true, 'the command has succeeded', ''],
  ])('%s', (run, isGood, detail, output) => {
    const { answer } = talkTo({}, { run });
    expect(answer?.isGood).toBe(isGood);
    if (detail !== null) expect(answer!.detail).toBe(detail);
    if (output !== null) expect(answer!.output).toBe(output.replaceAll('\r', ''));
    if (!isGood) expect(answer!.detail).toMatch(/^the command ended with [1-9]/);
  });

  it.each([
    ['a wrong password', {}, { password: 'wrong' }, true, /^the login of op was refused: Login/],
    ['an account that is locked', { refusal: 'Account locked.' }, {}, true, /: Account locked\.$/],
    [
      'a machine that is still booting',
      { refusal: '"System is booting up. Unprivileged users are not permitted to log in yet.' },
      ...[{}, false, /not permitted to log in yet/],
    ],
    [
      'no password to give',
      {},
      { password: null },
      true,
      /asks for a password, and none was given/,
    ],
  ] as const)('%s', (_what, kind, asked, isLast, detail) => {
    const { answer, guest } = talkTo(kind, asked);
    expect(answer).toMatchObject({ isGood: false, isLast, output: null });
    expect(answer!.detail).toMatch(detail);
    expect(guest.ran).toEqual([]);
  });

  it('that asks for more than a password gives nothing more, least of all a new password', () => {
    const words = ['', 'guest login: ', 'Password: ', 'You must change it.\r\nNew password: '];
    const { answer, typed } = talk(() => words.splice(0, 2).join('\r\n'));
    expect(typed).toEqual(['\r', 'op\r', `${PASSWORD}\r`].slice(0, typed.length));
    expect(answer).toMatchObject({ isGood: false });
    const asked = ['guest login: ', 'op\r\nPassword: ', '\r\nNew password: '];
    const { answer: more } = talk(() => asked.shift() ?? '');
    expect(more).toMatchObject({
      ...{ isLast: true, detail: 'the login of op asks for more: New password:' },
    });
  });

  it('takes no line of a login script for a question', () => {
    const guest = new SerialGuest(guestKind);
    const slowly = (text: string) => {
      const said = guest.type(text);
      const pause = ['', '', '', '', '', ''];
      return text.startsWith(PASSWORD)
        ? ['\r\nLoading modules:', ...pause, ` done${said}`]
        : [said];
    };
    let pieces: string[] = [];
    const type = (text: string) => {
      pieces = slowly(text);
      return pieces.join('');
    };
    // A piece without words is a while of silence.
    const { answer } = talk(type, question, () => pieces.flatMap((piece) => piece || SILENCE));
    expect(answer).toMatchObject({ isGood: true });
  });

  it('is not quoted with the password, wherever the guest shows it', () => {
    const run = `echo ${'x'.repeat(150)}; echo it is ${PASSWORD}`;
    const { answer } = talkTo({ isIndiscreet: true }, { run });
    expect(answer!.isGood).toBe(true);
    expect(`${answer!.detail}${answer!.output}`).not.toMatch(/correct|horse/);
    expect(answer!.output).toContain('it is *************');
    const refusal = `no ${PASSWORD} here: permission denied`;
    expect(talkTo({ refusal }).answer!.detail).toMatch(/no \*{13} here/);
  });

  it('with nobody is given up, and asked for again', () => {
    expect(talk(() => '').answer).toMatchObject({
      ...{ isLast: false, detail: 'the serial console does not answer' },
    });
    const { answer, tookMs } = talk(() => '\r\n');
    expect(answer).toMatchObject({ isLast: false });
    expect(tookMs).toBeLessThan(60_000);
  });

  it('over a command that does not end interrupts it, and logs out', () => {
    const guest = new SerialGuest(guestKind);
    const { answer, typed, tookMs } = talk((text) =>
      text.includes('begin') ? `\r\nbegin=${question.mark};\r\nstill here` : guest.type(text),
    );
    expect(answer).toMatchObject({
      ...{ isGood: false, isLast: false, output: 'still here' },
      detail: 'the command does not end; the last line: still here',
    });
    expect(typed.slice(-2)).toEqual(['\x03', 'exit\r']);
    expect(tookMs).toBeGreaterThan(RUN_MS);
    expect(guest.isAtLogin).toBe(true);
  });

  it('that is closed leaves no command and no shell behind', () => {
    const guest = new SerialGuest(guestKind);
    let state = openSerial(question, 0);
    let typed = '';
    const tell = (event: SerialEvent, nowMs: number) => {
      const turn = serialTransition(state, event, nowMs);
      state = turn.state;
      for (const effect of turn.effects) if (effect.type === 'type') typed = effect.text;
    };
    tell({ type: 'open' }, 0);
    for (let nowMs = 0; nowMs < 60_000 && !typed.includes('begin'); nowMs += 1000) {
      const line = typed;
      typed = '';
      if (line !== '') tell({ type: 'heard', text: guest.type(line) }, nowMs);
      tell({ type: 'time' }, nowMs + 900);
    }
    tell({ type: 'close' }, 60_000);
    expect(typed).toBe('\x03exit\r');
  });
});

/** Said by others, at whatever place; the rest of the line is theirs. */
const interruptions = [
  '[    3.264999] IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready\r\n',
  '[   12.000001][    T1] audit: login: root\r\n',
  '[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mMulti-User System\x1b[0m.\r\n',
  '[FAILED] Failed to start end=0123456789abcdef:0 Password: \r\n',
];
const pieces = fc.record({
  at: fc.array(fc.nat(400), { maxLength: 6 }),
  which: fc.nat(interruptions.length - 1),
  sizes: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 }),
});

/** The text with others' words between, in pieces. */
function disturbed(
  text: string,
  { at, which, sizes }: typeof pieces extends fc.Arbitrary<infer P> ? P : never,
) {
  const cuts = [...new Set(at.filter((each) => each <= text.length))].sort((a, b) => a - b);
  let whole = '';
  for (const [index, from] of [0, ...cuts].entries()) {
    whole += text.slice(from, cuts[index]) + (index < cuts.length ? interruptions[which] : '');
  }
  const found: string[] = [];
  for (let from = 0, turn = 0; from < whole.length; turn += 1) {
    const size = sizes[turn % sizes.length]!;
    found.push(whole.slice(from, from + size));
    from += size;
  }
  return found;
}

describe('however the words of the guest arrive', () => {
  const kinds: [string, Partial<GuestKind>, Partial<SerialQuestion>][] = [
    ['a good command', {}, {}],
    ['one that fails', {}, { run: 'echo oh; exit 3' }],
    ['no password', { password: null }, {}],
    ['a shell at once', { start: 'shell' }, {}],
    ['a refusal', {}, { password: 'wrong' }],
    ['a prompt of two lines', { prompt: '\x1b]0;title\x07\x1b[?2004hop@guest\r\n\u276f ' }, {}],
  ];
  it.each(kinds)('%s ends as it does undisturbed', (_what, kind, asked) => {
    const wanted = talkTo(kind, asked).answer;
    expect(wanted).not.toBe(null);
    fc.assert(
      fc.property(pieces, (how) => {
        const guest = new SerialGuest({ ...guestKind, ...kind });
        const { answer } = talk(
          (text) => guest.type(text),
          { ...question, ...asked },
          (text) => disturbed(text, how),
        );
        expect(answer).toEqual(wanted);
        expect(guest.isAtLogin).toBe(kind.start !== 'shell');
      }),
      { numRuns: 150 },
    );
  });

  it('the echo of what was typed is no answer', () => {
    fc.assert(
      fc.property(pieces, fc.constantFrom('~ # ', '$ ', 'guest login: ', ''), (how, prompt) => {
        const echo = (text: string) => `${text.replaceAll('\r', '\r\n')}${prompt}`;
        const { answer, typed } = talk(echo, question, (text) => disturbed(text, how));
        expect(answer?.isGood).not.toBe(true);
        expect(typed.join('')).not.toContain('begin');
      }),
      { numRuns: 150 },
    );
  });

  it('the password is given once, to a line that asks, after the name', () => {
    const words = fc.constantFrom(
      ...['Password: ', 'guest login: ', '~ # ', '\r\n', 'Login incorrect\r\n', 'op\r\n', 'x', ''],
      ...['Last login: Fri\r\n', 'Code: ', interruptions[0]!, 'New password: '],
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 40 }), (guestWords) => {
        let line = '';
        let wasNamed = false;
        let given = 0;
        const left = [...guestWords];
        talk((text) => {
          if (text.includes(PASSWORD)) {
            given += 1;
            expect(wasNamed).toBe(true);
            expect(line).toMatch(/: ?$/);
          }
          wasNamed = text === 'op\r';
          const said = left.splice(0, 1 + (guestWords.length % 3)).join('');
          line = said.replace(interruptions[0]!, '').split('\n').at(-1)!;
          return said;
        });
        expect(given).toBeLessThanOrEqual(1);
      }),
      { numRuns: 300 },
    );
  });
});

describe('somebody is there to talk to', () => {
  const QUIET = 5000;
  it.each([
    ['\r\nguest login: ', QUIET, true],
    ['\r\nguest login: ', 100, false],
    ['guest login: [    3.2] x', QUIET, false],
    ['guest login: [    3.264999] link is up\r\n', QUIET, true],
    ['guest login: [  OK  ] Reached target\r\n', QUIET, true],
    ['guest login: \r\naudit: somebody said this\r\n', QUIET, true],
    ['guest login: root (automatic login)\r\n\r\nWelcome\r\n', QUIET, true],
    ['[    1.2] x\r\n~ # ', QUIET, true],
    ['root@guest:~$ ', QUIET, true],
    ['root@guest:~$ ', 1000, false],
    ['Last login: Fri', QUIET, false],
    ['Loading initial ramdisk ...\r\n', QUIET, false],
    ['', QUIET, false],
  ])('%j, quiet for %i ms: %s', (text, quietMs, isSo) => {
    expect(invites(text, quietMs)).toBe(isSo);
  });
});
