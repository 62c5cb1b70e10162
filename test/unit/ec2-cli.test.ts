/** What the commands make of options and of the service's digests: images with holes, differences, refusals. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderPrestage } from '../../src/cli/commands/ec2-chain.ts';
import { differencesOf, pointImage } from '../../src/cli/point-image.ts';
import type { RestClient } from '../../src/cli/rest-client.ts';
import { runLine } from './support/command-line.ts';
import { fakePrestaged } from './support/fake-backend.ts';
import fc from './support/properties.ts';

const PIECE = 2 ** 20;

/** Images as the service tells them: one letter a MiB, a dot for zeros; `page` pieces at a time. */
function clientOf(images: Record<string, string>, page: number): RestClient {
  const imageIn = (path: string) => images[path.split('/')[3]!]!;
  const client = {
    head: async (path: string) => ({ sizeBytes: imageIn(path).length * PIECE, etag: 'e' }),
    range: async (path: string, offset: number, length: number) =>
      Buffer.from(imageIn(path).slice(offset / PIECE, (offset + length) / PIECE)),
    call: async (_method: string, path: string, { query }: { query: { offset: number } }) => {
      const image = imageIn(path);
      const first = Math.floor(query.offset / PIECE);
      const last = Math.min(image.length, first + page);
      const pieces = [...image.slice(first, last)].flatMap((letter, at) =>
        letter === '.' ? [] : [{ offset: (first + at) * PIECE, length: PIECE, digest: letter }],
      );
      return { pieces, next: last < image.length ? last * PIECE : null };
    },
  };
  return { url: 'http://x', ...client } as unknown as RestClient;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const letters = fc.string({
  unit: fc.constantFrom('.', '.', 'a', 'b'),
  minLength: 1,
  maxLength: 20,
});
const pages = fc.integer({ min: 1, max: 7 });

describe('an image of the service', () => {
  it('tells its data and nothing else, from any offset, over pages of any size', async () => {
    await fc.assert(
      fc.asyncProperty(letters, pages, fc.nat(19), async (text, page, start) => {
        const image = await pointImage(clientOf({ p: text }, page), 'p', 'v');
        const first = Math.min(start, text.length - 1);
        const found = new Set<number>();
        let data = await image.nextData(first * PIECE);
        while (data !== null) {
          found.add(data.offset / PIECE);
          data = await image.nextData(data.offset + data.length);
        }
        const expected = [...text].flatMap((letter, at) =>
          letter !== '.' && at >= first ? [at] : [],
        );
        expect([...found]).toEqual(expected);
      }),
    );
  });

  it('differs from another one where the service says so, over pages', async () => {
    const all = Array.from({ length: 5 }, (_, at) => ({ offset: at * PIECE, length: 7 }));
    const call = async (_method: string, path: string, options: { query: object }) => {
      expect(path).toBe('/v1/points/to/volumes/v/differences');
      const { from, offset } = options.query as { from: string; offset: number };
      expect(from).toBe('from');
      const left = all.filter((extent) => extent.offset >= offset);
      return { extents: left.slice(0, 2), next: left.length > 2 ? left[2]!.offset : null };
    };
    const client = { url: 'http://x', call } as unknown as RestClient;
    expect(await collect(differencesOf(client, { from: 'from', to: 'to' }, 'v'))).toEqual(all);
  });
});

/** A service that must not begin. */
const STAGING = ['staging', 'run', '--data', 'FOLDER/d'];

describe('what is kept ready', () => {
  it('is told by server, with what fails', () => {
    const text = renderPrestage({
      ...{ everyMs: 3_600_000, region: 'eu-central-1', bytesPerSecond: 2 ** 25 },
      servers: [fakePrestaged()],
    });
    expect(text).toMatch(/ready in eu-central-1, every 1h, at most 32\.0 MiB\/s/);
    expect(text).toMatch(/web1 +failing .* 50% +p1 +snap-1 +7 blocks/);
    expect(text).toContain('web1: no (ERR_AWS_DENIED, 2 times)');
    const off = { everyMs: null, region: null, bytesPerSecond: null, servers: [] };
    expect(renderPrestage(off)).toContain('without --ec2-prestage');
  });
});

describe('options', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'understudy-ec2-cli-'));
    writeFileSync(join(folder, 'token'), 'secret\n');
    writeFileSync(join(folder, 'plan.json'), '{"subnetId": 1}');
    writeFileSync(join(folder, 'other.json'), '{"understudy":"ec2-chain","version":1}');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const service = () => ['--staging', 'http://127.0.0.1:1', '--token-file', join(folder, 'token')];
  async function refusal(line: string[]): Promise<{ exitCode: number; err: string }> {
    const { exitCode, err } = await runLine(line);
    expect(err).toMatch(/^error: .+\nhint: .+\n$/);
    return { exitCode, err };
  }

  it.each([
    [['staging', 'run', '--data', 'FOLDER/d', '--ec2-region', 'r'], 2, 'is for --ec2-prestage'],
    [['staging', 'run', '--data', 'FOLDER/d', '--ec2-prestage', '1s'], 2, 'at least 10s'],
    [[...STAGING, '--ec2-prestage', '1h', '--ec2-plan', 'FOLDER/none.json'], 5, 'none.json'],
    [[...STAGING, '--ec2-prestage', '1h', '--ec2-region', 'Frankfurt'], 2, 'region is "Frankfurt"'],
    [[...STAGING, '--ec2-prestage', '1h', '--ec2-max-rate', 'x'], 2, 'x'],
    [
      [
        ...STAGING,
        '--ec2-prestage',
        '1h',
        '--ec2-region',
        'eu-west-1',
        '--ec2-plan',
        'FOLDER/plan.json',
      ],
      2,
      'the plan has the region',
    ],
    [['drill', 'start', '--target', 'ec2'], 2, 'needs --plan'],
    [['drill', 'start', '--dry-run'], 2, 'is for --target ec2'],
    [
      ['ec2', 'launch', '--point', 'p', '--record', 'FOLDER/r', '--plan', 'FOLDER/plan.json'],
      2,
      'subnetId',
    ],
    [['ec2', 'plan', '--point', 'p', '--plan', 'FOLDER/none.json'], 5, 'none.json'],
    [['ec2', 'cleanup', '--record', 'FOLDER/none', '--yes'], 5, 'there is no'],
    [
      ['ec2', 'cleanup', '--record', 'FOLDER/other.json', '--yes'],
      6,
      'no record of kind ec2-launch',
    ],
  ])('%j: exit %i', async (line, exitCode, message) => {
    const words = line.map((word) => word.replace('FOLDER', folder));
    const options = line[1] === 'cleanup' || line[0] === 'staging' ? [] : service();
    const ran = await refusal([...words, ...options]);
    expect(ran).toMatchObject({ exitCode, err: expect.stringContaining(message) });
  });
});
