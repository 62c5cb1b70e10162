/**
 * `understudy repo key ...`: key files, and the keys of an encrypted repository. A key file is made before
 * the repository. In a repository keys are only ever added, so all of it can be done beside a service, which
 * takes a new data key in at its next upkeep.
 */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { StoredKey } from '../../store/keys/key-files.ts';
import type { RepositoryKeys } from '../../store/keys/repository-keys.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import { keyOptions, keyOptionsOf, masterOf } from '../key-options.ts';
import { jsonOption } from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import { placeOptions, readerPlaceOf } from '../repository-options.ts';
import type { Settings } from '../settings.ts';
import { renderTable } from '../table.ts';

const repoOption: OptionSpec = {
  name: 'repo',
  type: 'text',
  value: 'PLACE',
  describe: 'Data directory of staging, its "repo", or s3://BUCKET/PREFIX',
  required: true,
};

const answer = (context: CommandContext, settings: Settings, value: object, text: string): void =>
  context.print(settings.flag('json') ? JSON.stringify(value, null, 2) : text);

const create: CommandSpec = {
  path: ['repo', 'key', 'create'],
  summary: 'Make a key file; whoever loses it loses every repository that only it opens',
  options: [
    {
      name: 'out',
      type: 'text',
      value: 'FILE',
      describe: 'File to be made, readable by its owner only; never written over',
      required: true,
    },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy repo key create --out /etc/understudy/key',
      does: 'then staging run --key-file /etc/understudy/key; keep a copy elsewhere',
    },
  ],
  async run(context, settings) {
    const { createKeyFile } = await import('../../store/keys/key-file.ts');
    const path = resolve(settings.text('out'));
    const id = await createKeyFile(path);
    answer(context, settings, { path, id }, `made ${path} (key ${id}): keep a copy elsewhere`);
    return 0;
  },
};

interface OpenKeys {
  readonly repository: string;
  readonly objects: readonly StoredKey[];
  readonly damage: readonly UnderstudyError[];
  /** ERR_KEY_REQUIRED where no key was given, ERR_KEY_WRONG. */
  open(): Promise<RepositoryKeys>;
}

/** ERR_DATA_FORMAT, ERR_KEY_NOT_ENCRYPTED. */
async function withKeys<Result>(
  context: CommandContext,
  settings: Settings,
  use: (keys: OpenKeys) => Promise<Result>,
): Promise<Result> {
  const { openReaderPlace } = await import('../../store/place.ts');
  const { openKeys } = await import('../../store/keys/key-place.ts');
  const world = { clock: systemClock, log: context.log };
  const place = await openReaderPlace(settings.text('repo'), readerPlaceOf(settings), world);
  try {
    const random = (count: number) => new Uint8Array(randomBytes(count));
    const opened = await openKeys(place, await masterOf(settings), random, context.clock.wallMs());
    return await use(opened);
  } finally {
    await place.close();
  }
}

const wordFor = { file: 'key file', root: 'root key' } as const;

const shown = ({ id, purpose, domain, number, createdMs, master }: StoredKey) => ({
  ...{ id, purpose, domain, number },
  created: new Date(createdMs).toISOString(),
  master: 'id' in master ? `${wordFor[master.kind]} ${master.id}` : master.kind,
});

/** One row for what opens a key, however many files say so: each key lies in two of them. */
export function renderKeys(objects: readonly StoredKey[], room: number | null = null): string {
  const files = new Map<string, number>();
  for (const object of objects) {
    const row = JSON.stringify(shown(object));
    files.set(row, (files.get(row) ?? 0) + 1);
  }
  const rows = [...files].map(([row, count]) => ({
    ...(JSON.parse(row) as ReturnType<typeof shown>),
    count,
  }));
  return renderTable(
    rows,
    [
      { title: 'KEY', cell: ({ id }) => id },
      { title: 'FOR', cell: ({ purpose }) => purpose },
      { title: 'DOMAIN', cell: ({ domain }) => domain, leftOut: 2 },
      { title: 'MADE', cell: ({ created }) => created, leftOut: 1 },
      { title: 'OPENED BY', cell: ({ master }) => master, isText: true },
      { title: 'FILES', cell: ({ count }) => String(count), alignRight: true },
    ],
    room,
  );
}

const list: CommandSpec = {
  path: ['repo', 'key', 'list'],
  summary: 'Show the keys of a repository and what opens them; needs no key itself',
  options: [repoOption, ...placeOptions, jsonOption],
  examples: [{ line: 'understudy repo key list --repo /srv/understudy', does: 'from a directory' }],
  async run(context, settings) {
    await withKeys(context, settings, async ({ objects, damage }) => {
      const keys = objects.map(shown);
      const told = damage.map(({ message }) => message);
      answer(
        context,
        settings,
        { keys, damage: told },
        [renderKeys(objects, context.columns), ...told].join('\n'),
      );
    });
    return 0;
  },
};

const rotate: CommandSpec = {
  path: ['repo', 'key', 'rotate'],
  summary: 'Add a data key for what is written from now on; nothing is written anew',
  options: [repoOption, ...keyOptions, ...placeOptions, jsonOption],
  examples: [
    {
      line: 'understudy repo key rotate --repo /srv/understudy --key-file /etc/understudy/key',
      does: 'a running service seals with it within two minutes',
    },
  ],
  async run(context, settings) {
    await withKeys(context, settings, async ({ open }) => {
      const { id } = await (await open()).rotate();
      answer(
        context,
        settings,
        { id },
        `data key ${id}: a running service seals with it within two minutes, and logs so`,
      );
    });
    return 0;
  },
};

const add: CommandSpec = {
  path: ['repo', 'key', 'add'],
  summary: 'Let another key file, passphrase or KMS key open the repository too',
  options: [
    repoOption,
    ...keyOptions,
    ...keyOptionsOf('new-', 'To be added: '),
    ...placeOptions,
    jsonOption,
  ],
  examples: [
    {
      line:
        'understudy repo key add --repo /srv/understudy --kms-key alias/backup ' +
        '--new-passphrase-file /root/break-glass',
      does: 'a way in where the KMS is lost',
    },
  ],
  async run(context, settings) {
    const master = await masterOf(settings, 'new-');
    if (master === undefined) {
      const message = 'give --new-key-file, --new-passphrase-file or --new-kms-key';
      throw new UnderstudyError('ERR_USAGE', message);
    }
    await withKeys(context, settings, async ({ open }) => {
      await (await open()).add(master);
      const added = master.name;
      answer(context, settings, { added }, `${added} opens the repository too`);
    });
    return 0;
  },
};

export const keyGroup: CommandGroup = {
  word: 'key',
  summary: 'Key files, and the keys of an encrypted repository',
  commands: [create, list, rotate, add],
};
