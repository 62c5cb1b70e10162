/** `understudy server token`, `server revoke`: what an agent is let in by, and by which it opens nothing else. */
import { resolve } from 'node:path';
import { createSecretFile } from '../../base/secret-file.ts';
import type { ApiAgentRevoked, ApiAgentToken } from '../../staging/api-types.ts';
import type { CommandSpec } from '../command.ts';
import { connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';

const serverPositional = {
  name: 'server',
  describe: 'Name of the source server, as its agent has it',
};
const pathOf = (server: string) => `/v1/servers/${encodeURIComponent(server)}`;

export const token: CommandSpec = {
  path: ['server', 'token'],
  summary: 'Make the token by which the agent of a server sends, and can do nothing else',
  positionals: [serverPositional],
  options: [
    ...operatorOptions,
    {
      name: 'out',
      type: 'text',
      value: 'FILE',
      describe:
        'File to be made, readable by its owner only; never written over; else it is printed',
    },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy server token web1 --out web1.token',
      does: 'for --token-file of the agent on web1; the same again until it is revoked',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.text('server');
    const made = await client.call<ApiAgentToken>('POST', `${pathOf(server)}/token`);
    const out = settings.optionalText('out');
    if (out === undefined) {
      context.print(settings.flag('json') ? JSON.stringify(made, null, 2) : made.token);
      return 0;
    }
    const path = resolve(out);
    await createSecretFile(path, `${made.token}\n`);
    if (settings.flag('json')) context.print(JSON.stringify({ server, path }, null, 2));
    else context.print(`${path}: the token of ${server} (agent run --token-file)`);
    return 0;
  },
};

export const revoke: CommandSpec = {
  path: ['server', 'revoke'],
  summary: 'Make void all tokens of a server; an agent that is there by one is sent away',
  positionals: [serverPositional],
  options: [...operatorOptions, yesOption, jsonOption],
  examples: [
    {
      line: 'understudy server revoke web1',
      does: 'after a token was stolen; then server token web1 makes a new one',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.text('server');
    if (!settings.flag('yes')) {
      await context.confirm(
        `Revoke all tokens of ${server}? Its agent stops, and goes on where it was with a new one.`,
      );
    }
    const revoked = await client.call<ApiAgentRevoked>('POST', `${pathOf(server)}/revoke`);
    if (settings.flag('json')) context.print(JSON.stringify(revoked, null, 2));
    else context.print(`the tokens of ${server} are void; server token ${server} makes a new one`);
    return 0;
  },
};
