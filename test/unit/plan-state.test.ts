/** The file of a plan, and the states of its run: tables, and every order of outcomes by property. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { parsePlan } from '../../src/staging/plans/plan-file.ts';
import {
  type ChosenPoint,
  canRetry,
  newRun,
  type PlanEffect,
  type PlanEvent,
  type PlanRun,
  type PlanStep,
  planTransition,
  statusOf,
} from '../../src/staging/plans/plan-state.ts';
import fc from './support/properties.ts';

const file = {
  name: 'shop',
  parallel: 2,
  groups: [
    {
      name: 'data',
      waitBefore: '30s',
      pre: { script: 'announce', arguments: ['begin'], timeout: '1m' },
      members: [
        { server: 'db1', waitFor: 'check', timeout: '10m', maxAge: '1h', at: 'latest-verified' },
        { server: 'db2', isCritical: false, options: { memoryBytes: 1 } },
      ],
      post: ['settle', { script: 'tell', isCritical: false }],
    },
    {
      name: 'web',
      waitAfter: '5s',
      members: [
        {
          server: 'web1',
          options: { bus: 'nvme' },
          drill: { options: { check: true } },
          failover: { target: 'ec2', plan: { region: 'eu-central-1' } },
        },
      ],
    },
  ],
};

describe('the file of a plan', () => {
  it('is read with its defaults', () => {
    const plan = parsePlan(file);
    expect(plan.groups[0]).toMatchObject({
      ...{ name: 'data', waitBeforeMs: 30_000, waitAfterMs: 0 },
      pre: [{ script: 'announce', arguments: ['begin'], timeoutMs: 60_000, isCritical: true }],
      post: [
        { script: 'settle', arguments: [], timeoutMs: 300_000, isCritical: true },
        { script: 'tell', isCritical: false },
      ],
    });
    expect(plan.groups[0]!.members[0]).toMatchObject({
      ...{ server: 'db1', isCritical: true, point: null, at: 'latest-verified' },
      ...{ maxAgeMs: 3_600_000, waitFor: 'check', timeoutMs: 600_000 },
    });
    expect(plan.groups[1]!.members[0]!.launches).toEqual({
      drill: {
        ...{ place: 'groups[1].members[0].drill', target: 'qemu', plan: null },
        options: { bus: 'nvme', check: true },
      },
      failover: {
        ...{ place: 'groups[1].members[0].failover', target: 'ec2', options: {} },
        plan: { region: 'eu-central-1' },
      },
    });
  });

  const group = (changes: object) => ({
    ...file,
    groups: [{ name: 'g', members: [], ...changes }],
  });
  const member = (changes: object) => group({ members: [{ server: 'a', ...changes }] });
  it.each([
    [[], /^a plan is an object/],
    [{ ...file, name: 'a b' }, /^name must be/],
    [{ ...file, group: [] }, /^group is not known here; there are name, /],
    [{ ...file, groups: [] }, /^groups must be a list of 1 to/],
    [{ ...file, parallel: 0 }, /^parallel must be/],
    [group({}), /^groups\[0\]: neither/],
    [group({ waitBefore: 30 }), /^groups\[0\]\.waitBefore must be a time/],
    [group({ waitBefore: 'soon' }), /^groups\[0\]\.waitBefore must be a time.*"soon"/],
    [group({ pre: '/bin/sh' }), /^groups\[0\]\.pre\.script must be .* no path/],
    [group({ pre: ['ok', '../x'] }), /^groups\[0\]\.pre\[1\]\.script must be/],
    [group({ pre: { script: 'x', arguments: 'a b' } }), /^groups\[0\]\.pre\.arguments must be/],
    [group({ post: { script: 'x', shell: true } }), /^groups\[0\]\.post\.shell is not known/],
    [member({ critical: true }), /^groups\[0\]\.members\[0\]\.critical is not known/],
    [member({ isCritical: 'no' }), /^groups\[0\]\.members\[0\]\.isCritical must be/],
    [member({ waitFor: 'login' }), /^groups\[0\]\.members\[0\]\.waitFor must be one of up, check/],
    [member({ options: { a: {} } }), /^groups\[0\]\.members\[0\]\.options\.a must be/],
    [member({ drill: { server: 'b' } }), /^groups\[0\]\.members\[0\]\.drill\.server is not known/],
    [member({ point: 'p', at: 'latest' }), /^groups\[0\]\.members\[0\]\.at goes without a point/],
    [member({ maxAge: '0s' }), /^groups\[0\]\.members\[0\]\.maxAge "0s" is not between/],
    [group({ members: [{ server: 'a' }, { server: 'a' }] }), /members\[1\]\.server: server "a" is/],
    [{ ...file, groups: [file.groups[0], file.groups[0]] }, /^groups\[1\]\.name: group "data" is/],
  ])('that is wrong is refused by the path of the field: %j', (given, message) => {
    const error = (() => {
      try {
        return parsePlan(given);
      } catch (caught) {
        return caught;
      }
    })();
    expect(error).toBeInstanceOf(UnderstudyError);
    expect(error).toMatchObject({ code: 'ERR_PLAN_FILE', message: expect.stringMatching(message) });
  });
});

const chosen: ChosenPoint = { point: 'p', pointTime: 't', problem: null };
const begin = { type: 'begin' } as const;
const error = { code: 'ERR_X', message: 'it broke', hint: '' };

/** Follows a run; what was launched, and how often, is noted. */
class Follower {
  run: PlanRun;
  nowMs = 1000;
  readonly effects: PlanEffect[] = [];
  constructor(run: PlanRun) {
    this.run = run;
  }
  tell(event: PlanEvent): readonly PlanEffect[] {
    this.nowMs += 1;
    // What is kept is what JSON keeps.
    const before = JSON.parse(JSON.stringify(this.run)) as PlanRun;
    const { run, effects } = planTransition(before, event, this.nowMs);
    this.run = run;
    this.effects.push(...effects);
    return effects.filter(({ type }) => type !== 'say');
  }
  step(number: number): PlanStep {
    return this.run.steps[number - 1]!;
  }
  end(number: number, failure: typeof error | null = null): readonly PlanEffect[] {
    const { attempt } = this.step(number);
    if (failure === null) return this.tell({ type: 'ended', step: number, attempt });
    return this.tell({ type: 'failed', step: number, attempt, error: failure });
  }
  get states(): string {
    return this.run.steps.map(({ state }) => state[0]).join('');
  }
}
const shop = () => new Follower(newRun('J', parsePlan(file), () => chosen));
/** Steps: 1 wait, 2 announce, 3 db1, 4 db2 (optional), 5 settle, 6 tell (optional), 7 web1, 8 wait. */
function upTo(states: string): Follower {
  const follower = shop();
  follower.tell(begin);
  for (let guard = 0; follower.states !== states && guard < 20; guard += 1) {
    const at = follower.run.steps.find((step) => step.state === 'running')!;
    follower.end(at.number, states[at.number - 1] === 'f' ? error : null);
  }
  expect(follower.states).toBe(states);
  return follower;
}

describe('a run of a plan', () => {
  it('takes its steps in order, the members of a group beside each other', () => {
    const shown: string[] = [];
    const follower = shop();
    follower.tell(begin);
    for (let number = 1; number <= 8; number += 1) {
      shown.push(follower.states);
      expect(statusOf(follower.run)).toBe('running');
      follower.end(number);
    }
    expect(shown).toEqual([
      ...['rwwwwwww', 'drwwwwww', 'ddrrwwww', 'dddrwwww', 'ddddrwww', 'dddddrww'],
      ...['ddddddrw', 'dddddddr'],
    ]);
    expect(statusOf(follower.run)).toBe('finished');
    expect(follower.step(3)).toMatchObject({ job: 'J.3.1', attempt: 1, point: 'p' });
  });

  it('waits for a time that a restart does not move', () => {
    const follower = shop();
    const [first] = follower.tell(begin);
    expect(first).toMatchObject({ type: 'wait', untilMs: 31_001 });
    follower.nowMs += 10_000;
    expect(follower.tell(begin)).toMatchObject([{ type: 'wait', untilMs: 31_001 }]);
  });

  it.each([
    ['a critical member', 'ddrrwwww', 3, 'ddfrwwww', 'running'],
    ['an optional member', 'dddrwwww', 4, 'dddfrwww', 'running'],
    ['a critical script', 'drwwwwww', 2, 'dfwwwwww', 'halted'],
    ['an optional script', 'dddddrww', 6, 'dddddfrw', 'running'],
  ] as const)('%s fails', (_what, from, number, to, status) => {
    const follower = upTo(from);
    follower.end(number, error);
    expect([follower.states, statusOf(follower.run)]).toEqual([to, status]);
    expect(follower.step(number).error).toEqual(error);
  });

  it('is halted once all that ran beside a critical failure has ended; a retry goes on', () => {
    const follower = upTo('ddrrwwww');
    follower.end(3, error);
    expect(follower.end(4)).toEqual([]);
    expect([follower.states, statusOf(follower.run)]).toEqual(['ddfdwwww', 'halted']);
    expect(follower.tell({ type: 'retry', step: 3, chosen: null })).toMatchObject([
      { type: 'launch', job: 'J.3.2' },
    ]);
    expect([follower.states, statusOf(follower.run)]).toEqual(['ddrdwwww', 'running']);
    // The first attempt is over: what comes late of it counts for nothing.
    expect(follower.tell({ type: 'failed', step: 3, attempt: 1, error })).toEqual([]);
    follower.end(3);
    expect(follower.states).toBe('ddddrwww');
  });

  it('a failed step that is accepted counts as done, and tells what was wrong', () => {
    const follower = upTo('ddrrwwww');
    follower.end(3, error);
    follower.end(4);
    follower.tell({ type: 'accept', step: 3 });
    expect(follower.states).toBe('ddddrwww');
    expect(follower.step(3)).toMatchObject({ error, attempt: 1 });
    const before = follower.run;
    expect(follower.tell({ type: 'accept', step: 3 })).toEqual([]);
    expect(follower.run).toEqual(before);
  });

  it.each([
    ['a step that runs', 'ddrrwwww', 3],
    ['one that is done', 'ddrrwwww', 2],
    ['one that waits', 'ddrrwwww', 5],
    ['none', 'ddrrwwww', 9],
  ])('a retry of %s changes nothing', (_what, from, number) => {
    const follower = upTo(from);
    const before = follower.run;
    expect(canRetry(before, number)).toBe(false);
    expect(follower.tell({ type: 'retry', step: number, chosen: null })).toEqual([]);
    expect(follower.run).toEqual(before);
  });

  it('after a restart the same script and the same jobs are asked for; a former version knew less', () => {
    const script = upTo('drwwwwww');
    expect(script.tell(begin)).toEqual([{ type: 'script', step: script.step(2) }]);
    expect(script.step(2)).toMatchObject({ state: 'running', attempt: 1 });
    const { hasKeepers: _new, ...formerRun } = upTo('drwwwwww').run;
    const former = new Follower(formerRun);
    expect(former.tell(begin)).toEqual([]);
    expect(former.step(2)).toMatchObject({ state: 'failed', error: { code: 'ERR_PLAN_SCRIPT' } });
    expect(statusOf(former.run)).toBe('halted');
    const members = upTo('ddrrwwww');
    expect(members.tell(begin)).toMatchObject([
      { type: 'launch', job: 'J.3.1' },
      { type: 'launch', job: 'J.4.1' },
    ]);
  });

  it('a member without a point fails at its turn: an optional one does not stop the others', () => {
    const problem = { code: 'ERR_PLAN_POINT', message: 'none', hint: '' };
    const without = (server: string) => (name: string) =>
      name === server ? { ...chosen, point: null, problem } : chosen;
    const optional = new Follower(newRun('J', parsePlan(file), without('db2')));
    optional.tell(begin);
    optional.end(1);
    optional.end(2);
    expect(optional.states).toBe('ddrfwwww');
    const critical = new Follower(newRun('J', parsePlan(file), without('db1')));
    critical.tell(begin);
    critical.end(1);
    critical.end(2);
    expect([critical.states, statusOf(critical.run)]).toEqual(['ddfwwwww', 'halted']);
    critical.tell({ type: 'retry', step: 3, chosen });
    expect(critical.states).toBe('ddrrwwww');
  });

  it('that is stopped begins nothing more', () => {
    const follower = upTo('ddrrwwww');
    follower.tell({ type: 'stop' });
    expect(follower.end(3)).toEqual([]);
    expect(follower.end(4, error)).toEqual([]);
    expect(follower.tell({ type: 'retry', step: 4, chosen: null })).toEqual([]);
    expect(follower.tell(begin)).toEqual([]);
    expect(statusOf(follower.run)).toBe('stopped');
  });
});

const plans = fc
  .record({
    parallel: fc.integer({ min: 1, max: 4 }),
    groups: fc.array(
      fc.record({
        wait: fc.boolean(),
        pre: fc.array(fc.boolean(), { maxLength: 2 }),
        members: fc.array(fc.boolean(), { minLength: 1, maxLength: 4 }),
        post: fc.array(fc.boolean(), { maxLength: 1 }),
      }),
      { minLength: 1, maxLength: 3 },
    ),
  })
  .map(({ parallel, groups }) =>
    parsePlan({
      ...{ name: 'p', parallel },
      groups: groups.map(({ wait, pre, members, post }, g) => ({
        ...{ name: `g${g}`, waitBefore: wait ? '5s' : '0s' },
        pre: pre.map((isCritical) => ({ script: 's', isCritical })),
        post: post.map((isCritical) => ({ script: 's', isCritical })),
        members: members.map((isCritical, m) => ({ server: `s${g}-${m}`, isCritical })),
      })),
    }),
  );
const acts = fc.array(
  fc.record({
    what: fc.constantFrom('end', 'end', 'end', 'fail', 'restart', 'retry', 'stale'),
    which: fc.nat(),
  }),
  { maxLength: 60 },
);

/** What must hold in every state, and between one and the next. */
function holdRules(before: PlanRun, after: PlanRun, act: string, retried: number | null): void {
  const begun = after.steps.filter((step, at) => step.attempt > before.steps[at]!.attempt);
  const members = after.steps.filter(({ kind, state }) => kind === 'member' && state === 'running');
  for (const step of begun) {
    if (step.number === retried) continue;
    const earlier = after.steps.filter(({ stage }) => stage < step.stage);
    expect(earlier.every(({ state }) => state === 'done' || state === 'failed')).toBe(true);
    expect(after.steps.some((each) => each.state === 'failed' && each.isCritical)).toBe(false);
    if (step.kind === 'member') expect(members.length).toBeLessThanOrEqual(after.parallel);
    expect(before.steps[step.number - 1]!.state).toBe('waiting');
  }
  if (act === 'stale') expect(after).toEqual(before);
}

describe('every order of outcomes, restarts and retries', () => {
  it('keeps the rules, launches each attempt under one id, and comes to an end', () => {
    fc.assert(
      fc.property(plans, acts, (plan, script) => {
        const follower = new Follower(newRun('J', plan, () => chosen));
        const owner = new Map<string, string>();
        const tell = (event: PlanEvent, act: string, retried: number | null = null) => {
          const before = follower.run;
          for (const effect of follower.tell(event)) {
            if (effect.type !== 'launch') continue;
            const who = `${effect.step.number}#${effect.step.attempt}`;
            expect(owner.get(effect.job) ?? who).toBe(who);
            owner.set(effect.job, who);
          }
          holdRules(before, follower.run, act, retried);
        };
        tell(begin, 'begin');
        for (const { what, which } of script) act(follower, { what, which }, tell);
        // Whatever happened: with retries that succeed it ends.
        for (let guard = 0; statusOf(follower.run) !== 'finished' && guard < 200; guard += 1) {
          const status = statusOf(follower.run);
          act(follower, { what: status === 'halted' ? 'retry' : 'end', which: 0 }, tell);
        }
        expect(statusOf(follower.run)).toBe('finished');
        const counted = follower.run.steps.reduce((sum, { attempt }) => sum + attempt, 0);
        expect(counted).toBeGreaterThanOrEqual(follower.run.steps.length);
      }),
      { numRuns: 300 },
    );
  });
});

type Tell = (event: PlanEvent, act: string, retried?: number | null) => void;

function act(
  { run }: Follower,
  { what, which }: { what: string; which: number },
  tell: Tell,
): void {
  const pick = (state: string) => {
    const found = run.steps.filter((step) => step.state === state);
    return found[which % Math.max(1, found.length)];
  };
  if (what === 'restart') tell(begin, what);
  const running = pick('running');
  const failed = pick('failed');
  if (what === 'retry' && failed !== undefined) {
    tell({ type: 'retry', step: failed.number, chosen: null }, what, failed.number);
  }
  if (running === undefined) return;
  const { number: step, attempt } = running;
  if (what === 'end') tell({ type: 'ended', step, attempt }, what);
  if (what === 'fail') tell({ type: 'failed', step, attempt, error }, what);
  if (what === 'stale') tell({ type: 'failed', step, attempt: attempt - 1, error }, what);
}

describe('PLANS.md', () => {
  const text = readFileSync(new URL('../../src/staging/plans/PLANS.md', import.meta.url), 'utf8');

  it('shows a plan that can be applied', () => {
    const shown = JSON.parse(/```json\n([\s\S]*?)```/.exec(text)![1]!);
    expect(parsePlan(shown).groups.map(({ name }) => name)).toEqual(['data', 'web']);
  });

  it('names every field, and no other', () => {
    const documented = new Set(
      [...text.matchAll(/^\|[^|]*\| ([^|]*) \|/gm)].flatMap((row) =>
        [...row[1]!.matchAll(/`(\w+)`/g)].map((match) => match[1]!),
      ),
    );
    const x = { unknown: 1 };
    const group = { name: 'g', members: [] };
    const wholes = [
      { name: 'a', groups: [{ ...group, pre: 's' }], ...x },
      { name: 'a', groups: [{ ...group, pre: 's', ...x }] },
      { name: 'a', groups: [{ ...group, pre: { script: 's', ...x } }] },
      { name: 'a', groups: [{ ...group, members: [{ server: 's', ...x }] }] },
    ];
    const known = new Set(wholes.flatMap(fieldsBeside));
    expect([...documented].sort()).toEqual([...known].sort());
  });
});

/** The fields that an object may have, as the refusal of an unknown one tells them. */
function fieldsBeside(whole: object): readonly string[] {
  try {
    parsePlan(whole);
  } catch (error) {
    return /there are (.*)$/.exec((error as Error).message)![1]!.split(', ');
  }
  throw new Error('it was not refused');
}
