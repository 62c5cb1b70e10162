/** `understudy staging run`: the staging service in the foreground, until a signal ends it. */
import { UnderstudyError } from '../../base/errors.ts';
import { parseDedupeDomains } from '../../model/dedupe-domain.ts';
import { DEFAULT_KEEP, parseKeepRules } from '../../model/retention.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import { copyServiceOptions, copySettings } from '../copy-options.ts';
import { keyOptions, keysOf } from '../key-options.ts';
import { openingLine } from '../opening.ts';
import { jsonOption } from '../operator.ts';
import { applianceOption } from '../prepare-options.ts';
import { prestageOptions, prestageSettings } from '../prestage-options.ts';
import { bucketOptions, placeOptions, writerPlaceOf } from '../repository-options.ts';
import type { Settings } from '../settings.ts';
import { checkServiceOptions, checksOf } from './server-check.ts';
import { scrubOf, scrubOptions } from './staging-scrub.ts';

function tlsFiles(settings: Settings): { certFile: string; keyFile: string } | undefined {
  const certFile = settings.optionalText('tls-cert');
  const keyFile = settings.optionalText('tls-key');
  if (certFile === undefined && keyFile === undefined) return undefined;
  if (certFile !== undefined && keyFile !== undefined) return { certFile, keyFile };
  throw new UnderstudyError('ERR_USAGE', '--tls-cert and --tls-key belong together');
}

const run: CommandSpec = {
  path: ['staging', 'run'],
  summary: 'Receive from agents, keep recovery points, serve images, until stopped',
  options: [
    {
      name: 'data',
      type: 'text',
      value: 'DIR',
      describe:
        'Everything that is kept lies here; made if missing. DIR/token is for agents and operators',
      required: true,
    },
    {
      name: 'listen',
      type: 'text',
      value: 'HOST:PORT',
      describe: 'Where to listen; beyond loopback only with TLS; port 0 takes any that is free',
      default: '127.0.0.1:7007',
    },
    {
      name: 'repo',
      type: 'text',
      value: 'PLACE',
      describe: 'The repository: a directory or s3://BUCKET/PREFIX (without it, DIR/repo)',
    },
    ...keyOptions,
    ...placeOptions,
    ...bucketOptions,
    {
      name: 's3-cold-after',
      type: 'duration',
      value: 'TIME',
      describe: 'Packs older than this go to the class GLACIER_IR',
    },
    {
      name: 'durability',
      type: 'text',
      choices: ['local', 'object'],
      describe:
        'When a point is acknowledged to the agent: once it is durable in DIR, or (object) once it ' +
        'is sealed in the repository',
      default: 'local',
    },
    {
      name: 'adopt',
      type: 'flag',
      describe: 'Go on with a repository whose data directory is lost',
    },
    {
      name: 'accept-rollback',
      type: 'flag',
      describe: 'Go on where the repository lacks points that were sealed in it: they are lost',
    },
    { name: 'tls-cert', type: 'text', value: 'FILE', describe: 'PEM certificate (chain)' },
    { name: 'tls-key', type: 'text', value: 'FILE', describe: 'PEM key of the certificate' },
    {
      name: 'keep',
      type: 'text',
      value: 'POLICY',
      describe:
        'Points to keep: INTERVAL=AGE, ... or a preset (drs, gfs), of servers without a policy of ' +
        'their own; the newest whole point of a server always stays',
      default: DEFAULT_KEEP,
    },
    {
      name: 'dedupe-domain',
      type: 'list',
      value: 'NAME=SERVER,SERVER...',
      describe:
        'Servers that need not send what another of them has sent; each can then tell what the ' +
        'others hold, so declare only servers that may know that',
    },
    {
      name: 'upkeep-rate',
      type: 'rate',
      value: 'RATE',
      describe: 'Folds, collection and figures read no faster; 0 for no limit',
      default: '64MiB/s',
    },
    {
      name: 'trust-clock',
      type: 'flag',
      describe: 'The clock of this machine is right: drop points by their age though it has leapt',
    },
    {
      name: 'scripts-dir',
      type: 'text',
      value: 'DIR',
      describe: 'Plans may run the programs in this folder; without it they run none',
    },
    ...copyServiceOptions,
    ...scrubOptions,
    ...prestageOptions,
    applianceOption,
    ...checkServiceOptions,
    { ...jsonOption, describe: 'Print the ready line as JSON' },
  ],
  examples: [
    { line: 'understudy staging run --data /srv/understudy', does: 'on this machine only' },
    {
      line: 'understudy staging run --data /srv/understudy --repo s3://backups/one',
      does: 'the repository in a bucket; /srv/understudy holds what has just arrived',
    },
    {
      line:
        'understudy staging run --data /srv/understudy --listen 0.0.0.0:7007 ' +
        '--tls-cert cert.pem --tls-key key.pem --keep all=1h,1h=7d',
      does: 'for other machines; all points of an hour, then one an hour for a week',
    },
    {
      line: 'understudy staging run --data /srv/understudy --key-file /etc/understudy/key',
      does: 'an encrypted repository (repo key create makes the key file first)',
    },
    {
      line: 'understudy staging run --data /srv/understudy --check-every 1d --check-memory 4GiB',
      does: 'and boots the newest point of each server once a day',
    },
    {
      line: 'understudy staging run --data /srv/understudy --copy-to /mnt/second --copy-every 1h',
      does: 'and copies new points to a second disk once an hour',
    },
    {
      line: 'understudy staging run --data /srv/understudy --ec2-prestage 1h --ec2-region eu-central-1',
      does: 'and keeps EBS snapshots ready, so that a launch in EC2 uploads little',
    },
  ],
  async run(context, settings) {
    const keep = parseKeepRules(settings.text('keep'));
    const { runStaging } = await import('../../staging/service.ts');
    const options = {
      dataDir: settings.text('data'),
      listen: settings.text('listen'),
      tls: tlsFiles(settings),
      keep,
      repo: settings.optionalText('repo'),
      placeOptions: writerPlaceOf(settings),
      ...(await keysOf(settings)),
      coldAfterMs: settings.optionalNumber('s3-cold-after'),
      durability:
        settings.text('durability') === 'object' ? ('object' as const) : ('local' as const),
      adopt: settings.flag('adopt'),
      acceptRollback: settings.flag('accept-rollback'),
      trustClock: settings.flag('trust-clock'),
      ...scrubOf(settings),
      applianceKernel: settings.optionalText('appliance-kernel'),
      ...checksOf(settings),
      upkeepRate: settings.number('upkeep-rate') || Number.POSITIVE_INFINITY,
      dedupeDomains: parseDedupeDomains(settings.list('dedupe-domain')),
      scriptsDir: settings.optionalText('scripts-dir'),
      copy: await copySettings(settings),
      prestage: await prestageSettings(settings),
      log: context.log,
      clock: context.clock,
    };
    const line = openingLine(context, settings.flag('json'));
    const starting = runStaging({ ...options, onOpening: line.told });
    const service = await starting.finally(() => line.end());
    const { url } = service;
    context.print(settings.flag('json') ? JSON.stringify({ url }) : `staging is ready at ${url}`);
    context.ready();
    const stop = () => {
      context.log.info('stopping');
      void service.close();
    };
    if (context.stop.aborted) stop();
    else context.stop.addEventListener('abort', stop);
    await service.ended;
    return 0;
  },
};

export const stagingGroup: CommandGroup = {
  word: 'staging',
  summary: 'The staging service',
  commands: [run],
};
