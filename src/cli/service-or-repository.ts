/** What commands share that ask a service, or, with --repo, look into a repository by themselves. */
import { UnderstudyError } from '../base/errors.ts';
import type { CommandContext } from './command.ts';
import { keyOptions } from './key-options.ts';
import { connect, operatorOptions } from './operator.ts';
import type { OptionSpec } from './option.ts';
import { placeOptions } from './repository-options.ts';
import type { RestClient } from './rest-client.ts';
import type { Settings } from './settings.ts';

export const repoOption: OptionSpec = {
  name: 'repo',
  type: 'text',
  value: 'PLACE',
  describe: 'Data directory of staging, its "repo", or s3://BUCKET/PREFIX: read without a service',
};
/** Without --repo the service is asked, and must be named. */
export const eitherOptions: readonly OptionSpec[] = [
  repoOption,
  ...keyOptions,
  ...placeOptions,
  ...operatorOptions.map((option) => ({ ...option, required: false })),
];

/** ERR_USAGE where no service is named either. */
export function connectRequired(context: CommandContext, settings: Settings): Promise<RestClient> {
  for (const name of ['staging', 'token-file']) {
    if (settings.optionalText(name) === undefined) {
      throw new UnderstudyError('ERR_USAGE', `give --repo, or --${name} of the service to ask`);
    }
  }
  return connect(context, settings);
}

export const isOffline = (settings: Settings): boolean =>
  settings.optionalText('repo') !== undefined;
