/** What a command is told: command line before environment before config file before default. */
import { describe, expect, it } from 'vitest';
import type { OptionSpec } from '../../src/cli/option.ts';
import { parseConfig, parseTime, settleOptions } from '../../src/cli/settings.ts';

const options: OptionSpec[] = [
  { name: 'token-file', type: 'text', describe: '', required: true },
  { name: 'cut-interval', type: 'duration', describe: '', default: '5s' },
  { name: 'bandwidth', type: 'rate', describe: '' },
  { name: 'limit', type: 'count', describe: '', default: 50 },
  { name: 'json', type: 'flag', describe: '' },
  { name: 'volume', type: 'list', describe: '' },
  {
    name: 'tracker',
    type: 'text',
    describe: '',
    choices: ['auto', 'bpf', 'scan'],
    default: 'auto',
  },
  { name: 'from', type: 'time', describe: '' },
];
const nowMs = Date.parse('2026-11-20T10:00:00Z');

function settle(
  given: Record<string, unknown>,
  environment: Record<string, string> = {},
  config: Record<string, unknown> = {},
) {
  return settleOptions({ options }, { given, environment, config, nowMs });
}

describe('settleOptions', () => {
  it('takes the command line before the environment before the config file before the default', () => {
    const environment = { UNDERSTUDY_TOKEN_FILE: 'env', UNDERSTUDY_CUT_INTERVAL: '2s' };
    const config = { 'token-file': 'config', 'cut-interval': '3s', limit: 7 };
    const all = settle({ 'token-file': 'given' }, environment, config);
    expect(all.text('token-file')).toBe('given');
    expect(all.number('cut-interval')).toBe(2000);
    expect(all.number('limit')).toBe(7);
    expect(all.text('tracker')).toBe('auto');
    expect(settle({}, {}, config).text('token-file')).toBe('config');
  });

  it('reads sizes, durations, times, flags and lists from text', () => {
    const all = settle(
      { 'token-file': 'f', volume: ['/dev/a', '/dev/b'] },
      { UNDERSTUDY_BANDWIDTH: '20MiB', UNDERSTUDY_JSON: '1', UNDERSTUDY_FROM: '30m' },
    );
    expect(all.number('bandwidth')).toBe(20 * 1024 * 1024);
    expect(all.flag('json')).toBe(true);
    expect(all.list('volume')).toEqual(['/dev/a', '/dev/b']);
    expect(all.number('from')).toBe(nowMs - 30 * 60_000);
    const fromEnvironment = settle({}, { UNDERSTUDY_TOKEN_FILE: 'f', UNDERSTUDY_VOLUME: 'a,b' });
    expect(fromEnvironment.list('volume')).toEqual(['a', 'b']);
  });

  it('leaves an option without a value undefined, and an empty variable counts as none', () => {
    const all = settle({ 'token-file': 'f' }, { UNDERSTUDY_BANDWIDTH: '' });
    expect(all.optionalNumber('bandwidth')).toBeUndefined();
    expect(all.list('volume')).toEqual([]);
    expect(all.flag('json')).toBe(false);
  });

  it.each([
    [{}, '--token-file is missing (or UNDERSTUDY_TOKEN_FILE)'],
    [{ 'token-file': 'f', limit: '-1' }, '--limit: not a whole number'],
    [{ 'token-file': 'f', limit: '1.5' }, '--limit: not a whole number'],
    [{ 'token-file': 'f', bandwidth: 'much' }, '--bandwidth: not a rate'],
    [{ 'token-file': 'f', 'cut-interval': '5' }, '--cut-interval: not a duration'],
    [{ 'token-file': 'f', tracker: 'magic' }, '--tracker: "magic" is none of auto, bpf, scan'],
    [{ 'token-file': 'f', from: 'yesterday' }, '--from: not a time'],
    [{ 'token-file': 'f', from: '2026-13-45' }, '--from: not a time'],
    [{ 'token-file': ['a', 'b'] }, '--token-file: given more than once'],
    [{ 'token-file': '' }, '--token-file: must not be empty'],
  ])('refuses %j by the name of the option', (given, message) => {
    expect(() => settle(given)).toThrowError(
      expect.objectContaining({ code: 'ERR_USAGE', message: expect.stringContaining(message) }),
    );
  });
});

describe('parseConfig', () => {
  const known = new Set(['staging', 'json']);

  it('gives the keys of a JSON object', () => {
    expect(parseConfig('{"staging": "x", "json": true}', 'c.json', known)).toEqual({
      staging: 'x',
      json: true,
    });
  });

  it.each(['', '[]', 'null', '1', '{"stagign": 1}', '{'])('refuses %j', (text) => {
    expect(() => parseConfig(text, 'c.json', known)).toThrowError(
      expect.objectContaining({ code: 'ERR_CLI_CONFIG' }),
    );
  });
});

describe('parseTime', () => {
  it('takes dates and spans of time before now', () => {
    expect(parseTime('2026-11-20T09:00:00Z', nowMs)).toBe(nowMs - 3600_000);
    expect(parseTime('1.5h', nowMs)).toBe(nowMs - 5400_000);
  });
});
