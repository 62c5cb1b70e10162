/**
 * The IAM policy that an identity needs for all of this and no more: a statement for each kind of right. Calls
 * that change something are bound to the tag that understudy gives to what it makes, where EC2 lets a policy
 * say so. A test holds the actions against the calls in the code. Written to install/aws/iam-policy.json by
 * scripts/lib/iam-policy.ts. Pure.
 */
import { managedTag } from './tags.ts';

interface Statement {
  readonly Sid: string;
  readonly Effect: 'Allow';
  readonly Action: readonly string[];
  readonly Resource: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

const snapshot = 'arn:aws:ec2:*::snapshot/*';
const image = 'arn:aws:ec2:*::image/*';
const own = (resource: string): string => `arn:aws:ec2:*:*:${resource}/*`;

const asMade = { StringEquals: { [`aws:RequestTag/${managedTag}`]: 'true' } };
const ofOurs = { StringEquals: { [`aws:ResourceTag/${managedTag}`]: 'true' } };

/** What AWS Backup and the Data Lifecycle Manager give to theirs, and whoever wants to, to his. */
export const foreignTags: readonly string[] = [
  ...['aws:backup:source-resource', 'aws:dlm:lifecycle-policy-id', 'understudy-hands-off'],
];
const isAbsent = (tag: string): [string, string] => [`aws:ResourceTag/${tag}`, 'true'];

const statements: readonly Statement[] = [
  {
    Sid: 'Look',
    Effect: 'Allow',
    Action: [
      'ec2:DescribeImages',
      'ec2:DescribeInstanceStatus',
      'ec2:DescribeInstanceTypeOfferings',
      'ec2:DescribeInstanceTypes',
      'ec2:DescribeInstances',
      'ec2:DescribeSnapshots',
      'ec2:DescribeSubnets',
      'ec2:DescribeVolumes',
    ],
    // EC2 knows no narrower right to look.
    Resource: '*',
  },
  {
    Sid: 'StartSnapshots',
    Effect: 'Allow',
    Action: ['ebs:StartSnapshot'],
    Resource: snapshot,
    Condition: asMade,
  },
  {
    Sid: 'WriteAndReadOwnSnapshots',
    Effect: 'Allow',
    Action: [
      'ebs:CompleteSnapshot',
      'ebs:GetSnapshotBlock',
      'ebs:ListSnapshotBlocks',
      'ebs:PutSnapshotBlock',
    ],
    Resource: snapshot,
    Condition: ofOurs,
  },
  {
    Sid: 'RegisterImages',
    Effect: 'Allow',
    Action: ['ec2:RegisterImage'],
    Resource: image,
    Condition: asMade,
  },
  {
    Sid: 'RegisterOwnSnapshots',
    Effect: 'Allow',
    Action: ['ec2:RegisterImage'],
    Resource: snapshot,
    Condition: ofOurs,
  },
  {
    Sid: 'RunTaggedInstances',
    Effect: 'Allow',
    Action: ['ec2:RunInstances'],
    Resource: [own('instance'), own('volume'), own('network-interface')],
    Condition: asMade,
  },
  {
    Sid: 'RunOwnImages',
    Effect: 'Allow',
    Action: ['ec2:RunInstances'],
    Resource: [image, snapshot],
    Condition: ofOurs,
  },
  {
    Sid: 'RunIn',
    Effect: 'Allow',
    Action: ['ec2:RunInstances'],
    Resource: [own('subnet'), own('security-group'), own('key-pair'), own('launch-template')],
  },
  {
    Sid: 'TagWhatIsMade',
    Effect: 'Allow',
    Action: ['ec2:CreateTags'],
    Resource: [own('instance'), own('volume'), own('network-interface'), image],
    Condition: {
      StringEquals: {
        'ec2:CreateAction': ['RegisterImage', 'RunInstances'],
        [`aws:RequestTag/${managedTag}`]: 'true',
      },
    },
  },
  {
    // StartSnapshot is a call of EBS: no ec2:CreateAction of it is documented. So of others' snapshots those
    // are left out that can be told: a new one bears none of these tags.
    Sid: 'TagNewSnapshots',
    Effect: 'Allow',
    Action: ['ec2:CreateTags'],
    Resource: snapshot,
    Condition: { ...asMade, Null: Object.fromEntries(foreignTags.map(isAbsent)) },
  },
  {
    Sid: 'StopAndStartOwn',
    Effect: 'Allow',
    Action: ['ec2:StartInstances', 'ec2:StopInstances'],
    Resource: own('instance'),
    Condition: ofOurs,
  },
  {
    Sid: 'RemoveOwn',
    Effect: 'Allow',
    Action: [
      'ec2:DeleteSnapshot',
      'ec2:DeleteVolume',
      'ec2:DeregisterImage',
      'ec2:TerminateInstances',
    ],
    Resource: [snapshot, image, own('instance'), own('volume')],
    Condition: ofOurs,
  },
  {
    // For plans with an instanceProfile: narrow the resource to the roles that recovered servers have.
    Sid: 'GiveRolesToInstances',
    Effect: 'Allow',
    Action: ['iam:PassRole'],
    Resource: 'arn:aws:iam::*:role/*',
    Condition: { StringEquals: { 'iam:PassedToService': 'ec2.amazonaws.com' } },
  },
  {
    // For encrypted snapshots: narrow the resource to the key of the plan.
    Sid: 'UseKeysThroughEc2',
    Effect: 'Allow',
    Action: [
      'kms:Decrypt',
      'kms:DescribeKey',
      'kms:GenerateDataKey',
      'kms:GenerateDataKeyWithoutPlaintext',
      'kms:ReEncryptFrom',
      'kms:ReEncryptTo',
    ],
    Resource: 'arn:aws:kms:*:*:key/*',
    Condition: { StringLike: { 'kms:ViaService': ['ec2.*.amazonaws.com', 'ebs.*.amazonaws.com'] } },
  },
  {
    Sid: 'LendKeysToVolumes',
    Effect: 'Allow',
    Action: ['kms:CreateGrant'],
    Resource: 'arn:aws:kms:*:*:key/*',
    Condition: { Bool: { 'kms:GrantIsForAWSResource': 'true' } },
  },
];

/** Actions that no call of ours names, but that AWS checks along with one that does. */
export const impliedActions: readonly string[] = [
  'ec2:CreateTags',
  'iam:PassRole',
  'kms:CreateGrant',
  'kms:Decrypt',
  'kms:DescribeKey',
  'kms:GenerateDataKey',
  'kms:GenerateDataKeyWithoutPlaintext',
  'kms:ReEncryptFrom',
  'kms:ReEncryptTo',
];

export const iamPolicy = { Version: '2012-10-17', Statement: statements };

/** As it stands in the file. */
export const iamPolicyText = (): string => `${JSON.stringify(iamPolicy, null, 2)}\n`;
