/**
 * The one catalogue of errors. Every error that leaves a module is an UnderstudyError with a code from
 * this list; the code fixes the kind, whether a retry may help, the process exit code and the hint that
 * an operator is shown. The README's table of codes is checked against it by a test.
 */

import { type ErrorSpec, spec } from './error-spec.ts';
import { sourceErrors } from './source-errors.ts';

export type { ErrorKind, ErrorSpec } from './error-spec.ts';

const HURT =
  'Use another point, or mend it: repo repair; repo check --read-data tells what is hurt.';

export const errorCatalogue = {
  ERR_BUG: spec('bug', 1, 'This is a defect in understudy; please report it with the log.'),
  ERR_USAGE: spec('usage', 2, 'See --help for the options of this command.'),
  // cli and export
  ERR_CLI_CONFIG: spec('usage', 2, 'The config file is a JSON object: option names and values.'),
  ERR_CLI_CONFIRMATION: spec('usage', 6, 'Answer yes at a terminal, or give --yes.'),
  ERR_CLI_TOKEN: spec(
    'usage',
    2,
    'Give --token-file: the file "token" in the data directory of staging.',
  ),
  ERR_CLI_CERTIFICATE: spec(
    'usage',
    2,
    'Give --ca: a PEM file with the certificate that staging shows.',
  ),
  ERR_CLI_INTERRUPTED: spec(
    'operational',
    3,
    'What was done stays; run the command again to go on.',
    true,
  ),
  ERR_CLI_UNREACHABLE: spec(
    'operational',
    3,
    'Is staging running, and is --staging its URL?',
    true,
  ),
  ERR_CLI_RESPONSE: spec('operational', 3, 'Is --staging an understudy service of this version?'),
  ERR_CLI_MISSING_PROGRAM: spec(
    'operational',
    3,
    'Install the program named, or use --format raw.',
  ),
  ERR_EXPORT_EXISTS: spec('operational', 6, 'Give another --out, or --yes to replace the file.'),
  ERR_EXPORT_TARGET: spec(
    'usage',
    6,
    'Give --out a file. A disk is set to a point by failback run --map VOLUME=DISK --point ID.',
  ),
  ERR_EXPORT_MISMATCH: spec(
    'corruption',
    4,
    'The written image differs from the point; run repo check --read-data.',
  ),
  ERR_EXPORT_CONVERT: spec(
    'operational',
    3,
    'qemu-img failed; export as raw and convert by hand.',
    true,
  ),
  ERR_EXPORT_REFUSED: spec(
    'usage',
    6,
    'The message says what the format cannot hold; choose another --format.',
  ),
  // disk
  ERR_DISK_NOT_FOUND: spec('operational', 5, 'The file or folder named does not exist.'),
  ERR_DISK_EXISTS: spec('operational', 6, 'The name is taken.'),
  ERR_DISK_FULL: spec('operational', 3, 'Free space on the disk; nothing was lost.', true),
  ERR_DISK_PERMISSION: spec('operational', 3, 'Check owner and mode of the path named.'),
  ERR_DISK_IO: spec('operational', 3, "The disk failed; look at the system's log."),
  // object stores
  ERR_OBJECTS_UNAVAILABLE: spec(
    'operational',
    3,
    'Is the object store up, and its endpoint right? Staging tries again; nothing was lost.',
    true,
  ),
  ERR_OBJECTS_DENIED: spec(
    'operational',
    3,
    'Check credentials, region and policy: objects are listed, read, put and removed.',
  ),
  ERR_OBJECTS_NO_BUCKET: spec('operational', 5, 'Make the bucket, or check its name and region.'),
  ERR_OBJECTS_LOCKED: spec(
    'operational',
    6,
    'Object Lock keeps it; it can be removed when its time is over.',
  ),
  ERR_OBJECTS_CONFLICT: spec(
    'operational',
    6,
    'Something else writes to this repository: stop it, then run repo check.',
  ),
  ERR_OBJECTS_ARCHIVED: spec(
    'operational',
    3,
    'Restore the object from its archive first; keep repositories out of GLACIER and DEEP_ARCHIVE.',
  ),
  ERR_OBJECTS_NO_LOCK: spec(
    'operational',
    6,
    'Name a bucket that has Object Lock (it is set where the bucket is made), or leave the lock out.',
  ),
  ERR_OBJECTS_UNSUITABLE: spec(
    'operational',
    6,
    'The object store must know conditional writes (If-None-Match); use another, or update it.',
  ),
  // store
  ERR_ENTRIES_INVALID: spec('operational', 3, 'The list of entries is malformed.'),
  ERR_RETENTION_RULES: spec(
    'usage',
    2,
    'Give rules as all=1h,10m=1d,1h=1w,1d=30d, or a preset: drs, gfs.',
  ),
  ERR_DATA_IN_USE: spec('operational', 6, 'Another staging service uses this data directory.'),
  ERR_DATA_FORMAT: spec(
    'operational',
    6,
    'Check the directory or s3://BUCKET/PREFIX; it must be of this version of understudy.',
  ),
  ERR_REPOSITORY_IN_USE: spec(
    'operational',
    6,
    'Stop the other staging service, or give this one a repository of its own.',
  ),
  ERR_LEASE_LOST: spec(
    'operational',
    6,
    'Only one staging service may have a repository; stop this one or the other.',
  ),
  ERR_KEY_REQUIRED: spec(
    'usage',
    2,
    'Give the key that the repository was made with: --key-file, --passphrase-file or --kms-key.',
  ),
  ERR_KEY_NOT_ENCRYPTED: spec(
    'usage',
    6,
    'Leave the key out; if the repository was encrypted once, somebody has replaced it.',
  ),
  ERR_KEY_WRONG: spec('operational', 6, 'Give the key that the repository was made with.'),
  ERR_KEY_FILE: spec(
    'usage',
    2,
    'Make a key file with repo key create; only its owner may read it.',
  ),
  ERR_KEY_DENIED: spec(
    'operational',
    6,
    'The KMS refuses: allow kms:Decrypt and kms:GenerateDataKey on the key, and enable it.',
  ),
  ERR_KEY_UNAVAILABLE: spec('operational', 3, 'The KMS does not answer; try again later.', true),
  ERR_REPOSITORY_BEHIND: spec(
    'corruption',
    4,
    'Was an older copy put back? Put the newer one back, or accept the loss: --accept-rollback.',
  ),
  ERR_STORE_FAILED: spec('operational', 3, 'Fix the disk, then start staging again.'),
  ERR_STORE_CLOSED: spec('operational', 3, 'The store is closed.'),
  ERR_JOURNAL_DAMAGED: spec(
    'corruption',
    4,
    'Restore it from a copy; or set the journal folder aside and start with --adopt: sealed points stay.',
  ),
  ERR_OBJECT_DAMAGED: spec('corruption', 4, HURT),
  ERR_OBJECT_MISSING: spec('corruption', 4, HURT),
  ERR_PIECE_DAMAGED: spec('corruption', 4, HURT),
  ERR_PIECE_MISSING: spec('corruption', 4, HURT),
  ERR_REPAIR_SAME: spec('usage', 2, 'Give another repository with --from, or leave it out.'),
  ERR_CATALOG: spec('operational', 3, 'Remove catalog.sqlite; it is rebuilt at the next start.'),
  ERR_COPY_PLACE: spec(
    'usage',
    6,
    'Give --to: an empty place, or one that holds a copy of this source.',
  ),
  ERR_COPY_FOREIGN: spec(
    'operational',
    6,
    'Give --to another place: each source has its own copies.',
  ),
  ERR_COPY_STOPPED: spec('operational', 3, 'What was copied stays; copy again to go on.', true),
  ERR_COPY_LOST: spec('operational', 6, 'Is the disk mounted? --anew begins a new copy there.'),
  ERR_INGEST_BUSY: spec('operational', 6, 'The server has a session already.', true),
  ERR_INGEST_DESCRIPTION: spec('operational', 6, 'The server or a volume is described wrongly.'),
  ERR_INGEST_CLOSED: spec('operational', 3, 'The session has ended; begin a new one.', true),
  ERR_COMMIT_POSITION: spec(
    'operational',
    6,
    'Agent and staging disagree on the position; the volume must be rescanned.',
  ),
  ERR_COMMIT_INVALID: spec(
    'operational',
    6,
    'A commit says what cannot be; is the clock of the source server right?',
  ),
  ERR_POINT_HELD: spec('operational', 6, 'point show tells why; point release lets it go.'),
  ERR_POINT_NOT_HELD: spec('operational', 5, 'point list --held shows the points that are held.'),
  ERR_POINT_NOT_FOUND: spec('operational', 5, 'List the points with point list.'),
  ERR_VOLUME_NOT_FOUND: spec('operational', 5, 'point show names the volumes of a point.'),
  ERR_IMAGE_RANGE: spec('usage', 2, 'The range must lie inside the image.'),
  // protocol and session
  ERR_PROTOCOL_FRAME: spec('operational', 3, 'The other side does not speak this protocol.'),
  ERR_PROTOCOL_CHECKSUM: spec('operational', 3, 'The network damaged a frame.', true),
  ERR_PROTOCOL_MESSAGE: spec('operational', 3, 'Agent and staging must be of fitting versions.'),
  ERR_PROTOCOL_VERSION: spec('operational', 6, 'Update the older of agent and staging.'),
  ERR_PROTOCOL_ORDER: spec('bug', 3, 'A defect of the other side; report it with both logs.'),
  ERR_PROTOCOL_WINDOW: spec('bug', 3, 'A defect of the other side; report it with both logs.'),
  ERR_PROTOCOL_VOLUME: spec('bug', 3, 'A defect of the other side; report it with both logs.'),
  ERR_PROTOCOL_DIGEST: spec('operational', 3, 'Contents were damaged on their way.', true),
  ERR_OTHER_HARDWARE: spec(
    'operational',
    6,
    'Another machine holds this server name: choose another --server, or run server admit.',
  ),
  ERR_FAILBACK_TARGET: spec(
    'usage',
    6,
    'Nothing was written. Free the disk (umount, swapoff, vgchange -an), or name another one.',
  ),
  ERR_FAILBACK_MISMATCH: spec(
    'corruption',
    4,
    'The disk gives back other bytes than were written: replace it; the point is still there.',
  ),
  ERR_FAILBACK_NOT_FOUND: spec('operational', 5, 'See failback list; failback start begins one.'),
  ERR_UNDO_FILE: spec('operational', 6, 'Give the file that failback run --undo has written.'),
  ERR_FAILBACK_STATE: spec(
    'operational',
    6,
    'See failback list: the step does not fit the state that the failback is in.',
  ),
  ERR_RESCAN_DEMANDED: spec(
    'operational',
    3,
    'The agent connects again by itself and scans the volume; see repo check.',
    true,
  ),
  ERR_SESSION_REPLACED: spec('operational', 3, 'A newer agent of this server took over.', true),
  // transport
  ERR_TLS_REQUIRED: spec(
    'usage',
    2,
    'Only loopback may be used in clear: give --tls-cert and --tls-key, and an https URL.',
  ),
  ERR_TLS_FILES: spec('usage', 2, 'Give a PEM certificate and the PEM key that belongs to it.'),
  ERR_TLS_UNTRUSTED: spec('operational', 3, 'Give --ca: the certificate that staging shows.'),
  ERR_LISTEN: spec('operational', 3, 'Is the address free, and one of this machine?'),
  ERR_UNAUTHORIZED: spec(
    'operational',
    6,
    'Operators give DATA/token of this staging, agents that of their server (server token NAME).',
  ),
  ERR_AGENT_TOKEN: spec(
    'operational',
    6,
    'An operator makes the token of this server with server token NAME.',
  ),
  ERR_CONNECTION_REFUSED: spec('operational', 3, 'Is staging running, and is its URL right?', true),
  ERR_CONNECTION_ANSWER: spec('operational', 3, 'Is the URL that of a staging service?', true),
  ERR_CONNECTION_LOST: spec('operational', 3, 'The agent connects again by itself.', true),
  ERR_CONNECTION_SILENT: spec('operational', 3, 'The agent connects again by itself.', true),
  ERR_CONNECTION_CLOSED: spec('operational', 3, 'The agent connects again by itself.', true),
  // staging and its API
  ERR_STAGING_STOPPING: spec('operational', 3, 'Staging is being stopped.', true),
  ERR_STAGING_FAILED: spec('operational', 3, "Look at staging's log.", true),
  ERR_REGISTER_DAMAGED: spec('corruption', 4, 'Restore DATA/servers from a copy, or remove it.'),
  ERR_REVISIONS_DAMAGED: spec(
    'corruption',
    4,
    'Remove DATA/agent-revisions and DATA/token: then all agents need new tokens.',
  ),
  ERR_TOKEN_DAMAGED: spec('operational', 3, 'Remove DATA/token: staging makes a new one.'),
  ERR_API_NOT_FOUND: spec('usage', 5, 'GET /v1/openapi.json lists what there is.'),
  ERR_API_METHOD: spec('usage', 2, 'GET /v1/openapi.json lists what there is.'),
  ERR_API_REQUEST: spec('usage', 2, 'GET /v1/openapi.json tells the parameters.'),
  ERR_SERVER_NOT_FOUND: spec('operational', 5, 'List the servers with server list.'),
  ERR_MACHINE_UNKNOWN: spec('operational', 5, 'An agent of this version tells it when it starts.'),
  ERR_SERVER_OFFLINE: spec('operational', 3, 'Start the agent of that server.', true),
  ERR_HARDWARE_NOT_PENDING: spec('operational', 6, 'server show tells which hardware waits.'),
  ERR_POINT_TIMEOUT: spec('operational', 3, 'The agent is busy; the point may still come.', true),
  ERR_CLOCK_DOUBTED: spec(
    'operational',
    6,
    'Look at the clock of the staging machine; if it is right: retention resume.',
  ),
  ERR_JOB_RUNNING: spec('operational', 6, 'Wait for the job that is running.', true),
  ERR_JOB_NOT_FOUND: spec(
    'operational',
    5,
    'List the jobs with job list; checks of the repository are forgotten when staging restarts.',
  ),
  ERR_JOB_STATE: spec('operational', 6, 'job show tells the state of the job.'),
  ERR_JOB_KEEPS: spec(
    'operational',
    6,
    'failover stop shuts it down and keeps its disks; failover discard --yes throws them away.',
  ),
  ERR_FAILOVER_SOURCE: spec(
    'operational',
    6,
    'Shut the one that runs down first; or give --yes (REST: "yes": true), and both will run.',
  ),
  ERR_JOB_CANCELLED: spec('operational', 6, 'Start it again, if it is still wanted.'),
  ERR_JOB_DAMAGED: spec('corruption', 4, 'Remove the folder of that job below DATA/jobs.'),
  // plans
  ERR_PLAN_FILE: spec('usage', 2, 'plan apply --help shows a plan; the message names the fault.'),
  ERR_PLAN_NOT_FOUND: spec('operational', 5, 'List the plans with plan list.'),
  ERR_PLAN_DAMAGED: spec('corruption', 4, 'Apply the plan again: plan apply FILE.'),
  ERR_PLAN_CHECK: spec('operational', 6, 'plan check NAME tells all that is in the way.'),
  ERR_PLAN_POINT: spec(
    'operational',
    6,
    'point list --server NAME tells what there is; the plan says at, point and maxAge.',
  ),
  ERR_PLAN_SCRIPT: spec('operational', 3, 'job log of the job of the plan holds its output.'),
  ERR_PLAN_SCRIPTS_DIR: spec(
    'operational',
    6,
    'Scripts and their folder belong to root or the service, and only they may write there.',
  ),
  ERR_PLAN_STEP: spec('operational', 6, 'job show of the job of the plan tells its steps.'),
  ERR_PLAN_TIMEOUT: spec('operational', 3, 'job log tells how far it came; the plan says timeout.'),
  ERR_PLAN_HALTED: spec(
    'operational',
    3,
    'plan retry JOB --step N runs the failed step again, plan accept takes it as done; plan stop ends it.',
  ),
  // launches
  ERR_LAUNCH_OPTIONS: spec(
    'usage',
    2,
    'drill start --help and failover start --help tell the options and their values.',
  ),
  ERR_LAUNCH_PROGRAM: spec(
    'operational',
    3,
    'Install it on the staging machine (Debian: qemu-system-x86, qemu-utils, openssh-client).',
  ),
  ERR_LAUNCH_FIRMWARE: spec(
    'operational',
    3,
    'Install OVMF on the staging machine (Debian: ovmf), or give --firmware bios.',
  ),
  ERR_LAUNCH_NOT_BOOTABLE: spec(
    'operational',
    6,
    'Is the boot disk among the volumes? --firmware bios or uefi tries the first one anyway.',
  ),
  ERR_LAUNCH_NETWORK: spec(
    'operational',
    6,
    'Do on the staging machine what the message says, or give another --network (isolated, user).',
  ),
  ERR_LAUNCH_PORT: spec('operational', 6, 'Give another port, or end what listens there.'),
  ERR_LAUNCH_FAILED: spec('operational', 3, 'job log tells what happened; start it again.', true),
  ERR_APPLIANCE_KERNEL: spec(
    'operational',
    3,
    'Install one (Debian: linux-image-cloud-amd64), give staging run --appliance-kernel, or --prepare none.',
  ),
  ERR_APPLIANCE: spec(
    'operational',
    3,
    'Install it on the staging machine (Debian: busybox-static), or give --prepare none.',
  ),
  ERR_PREPARE_FAILED: spec(
    'operational',
    3,
    'prepare-console.log in the folder of the job may tell why; --prepare none boots it as it is.',
    true,
  ),
  ERR_LAUNCH_GONE: spec(
    'operational',
    3,
    'It ended, or was killed, while staging was not there; start it again.',
  ),
  ERR_BOOT_CHECK: spec(
    'operational',
    3,
    'Look at console.log and the screenshot in the folder of the job.',
  ),
  ERR_IMAGE_CHANGED: spec('operational', 6, 'The image is not the one whose ETag was given.'),
  // AWS and EC2
  ERR_AWS_CREDENTIALS: spec(
    'operational',
    6,
    'Give AWS credentials and a region (of a job: to the staging service): environment, profile or role.',
  ),
  ERR_AWS_DENIED: spec(
    'operational',
    6,
    'Give the identity the permissions of install/aws/iam-policy.json.',
  ),
  ERR_AWS_QUOTA: spec(
    'operational',
    3,
    'Ask AWS for a higher quota or free what is used, then run the same command again.',
    true,
  ),
  ERR_AWS_UNAVAILABLE: spec(
    'operational',
    3,
    'AWS did not answer, or was too busy; run the same command again: it goes on where it was.',
    true,
  ),
  ERR_AWS_REFUSED: spec('operational', 3, 'AWS refused the request; its words say why.'),
  ERR_EC2_PLAN: spec('usage', 2, 'install/aws/README.md describes the fields of a launch plan.'),
  ERR_EC2_INSTANCE_TYPE: spec(
    'operational',
    6,
    'Name another instanceType or another subnet in the plan, then run the same command again.',
  ),
  ERR_EC2_DISK: spec(
    'operational',
    6,
    'The volume cannot be an EBS volume, or cannot boot as one.',
  ),
  ERR_EC2_SNAPSHOT_GONE: spec(
    'operational',
    5,
    'The snapshot was deleted or expired; run the same command again to upload it anew.',
    true,
  ),
  ERR_EC2_SNAPSHOT_FAILED: spec(
    'operational',
    3,
    'AWS gave the snapshot up; run the same command again to upload it anew.',
    true,
  ),
  ERR_EC2_MISMATCH: spec(
    'corruption',
    4,
    'The snapshot differs from the point; clean up, and check the repository.',
  ),
  ERR_EC2_INSTANCE_FAILED: spec(
    'operational',
    3,
    "Look at the instance's console output, then clean up.",
  ),
  ERR_EC2_RECORD: spec(
    'operational',
    6,
    'Give the record of this very launch, or a name that is free.',
  ),
  ERR_EC2_PRESTAGE_OFF: spec(
    'usage',
    2,
    'Start staging with --ec2-prestage 1h, and --ec2-servers where few servers shall have it.',
  ),
  ERR_EC2_CHAIN_IN_USE: spec(
    'operational',
    6,
    'Wait for the launch, or deregister the image that uses the snapshot; then try again.',
  ),
  ...sourceErrors,
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof errorCatalogue;

/** What the error is about; every field is optional and printed when set. */
export interface ErrorContext {
  volume?: string;
  offset?: number;
  epoch?: number;
  path?: string;
  syscall?: string;
  errno?: string;
  [key: string]: string | number | boolean | undefined;
}

export class UnderstudyError extends Error {
  readonly code: ErrorCode;
  readonly context: ErrorContext;

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'UnderstudyError';
    this.code = code;
    this.context = context;
  }

  get spec(): ErrorSpec {
    return errorCatalogue[this.code];
  }
}

/** Assertion: a false condition is a defect, never an operational error. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new UnderstudyError('ERR_BUG', `assertion failed: ${message}`);
}
