/**
 * What is asked of EC2, made of a plan: the image and the instance. Pure, so that a dry run shows the very
 * requests that a launch makes, and a repeated launch makes the same ones.
 */
import type {
  _InstanceType,
  BlockDeviceMapping,
  RegisterImageRequest,
  RunInstancesRequest,
  VolumeType,
} from '@aws-sdk/client-ec2';
import type { LaunchKind } from '../runner.ts';
import type { BootMode } from './boot-mode.ts';
import type { FittedPlan } from './launch-choices.ts';
import type { LaunchPlan } from './launch-plan.ts';
import { clientToken, type Tag } from './tags.ts';

export interface LaunchVolume {
  readonly volume: string;
  readonly snapshotId: string;
}

/** All that the two requests depend on. */
export interface LaunchFacts {
  readonly job: string;
  readonly kind: LaunchKind;
  readonly plan: FittedPlan;
  readonly server: string;
  readonly point: string;
  /** The root volume first. */
  readonly volumes: readonly LaunchVolume[];
  readonly bootMode: BootMode;
  readonly tags: readonly Tag[];
}

/** /dev/xvda is the root; the others follow. Nitro instances show them as NVMe, in this order. */
export function deviceName(index: number): string {
  if (index === 0) return '/dev/xvda';
  const letters = 'bcdefghijklmnopqrstuvwxyz';
  const at = index - 1;
  const first = Math.floor(at / 25);
  return first === 0 ? `/dev/xvd${letters[at]}` : `/dev/xvd${'abcd'[first]}${letters[at % 25]}`;
}

/** 3 to 128 characters of a few kinds; the job makes it unique. */
export const imageName = (server: string, job: string): string => {
  const readable = server.replaceAll(/[^A-Za-z0-9._-]/g, '-').slice(0, 40);
  return `understudy-${readable}-${clientToken('image', job).slice(0, 24)}`;
};

export function registerImageRequest(facts: LaunchFacts): RegisterImageRequest {
  const { plan, server, point, job, bootMode } = facts;
  return {
    Name: imageName(server, job),
    Description: `understudy: ${server} at ${point}`.slice(0, 255),
    Architecture: plan.architecture,
    BootMode: bootMode,
    EnaSupport: true,
    VirtualizationType: 'hvm',
    RootDeviceName: deviceName(0),
    BlockDeviceMappings: facts.volumes.map((volume, index) => mapping(facts, volume, index)),
    TagSpecifications: [{ ResourceType: 'image', Tags: [...facts.tags] }],
  };
}

/** What a failover writes is nowhere else: its volumes outlive the instance, unless the plan says so. */
function mapping(
  { plan, kind }: LaunchFacts,
  { snapshotId }: LaunchVolume,
  index: number,
): BlockDeviceMapping {
  return {
    DeviceName: deviceName(index),
    Ebs: {
      SnapshotId: snapshotId,
      DeleteOnTermination: !(plan.keepsVolumes ?? kind === 'failover'),
      VolumeType: plan.volumeType as VolumeType,
      ...(plan.iops !== null && { Iops: plan.iops }),
      ...(plan.throughputMiB !== null && { Throughput: plan.throughputMiB }),
    },
  };
}

export function runInstancesRequest(
  facts: LaunchFacts,
  imageId: string,
  instanceType: string,
): RunInstancesRequest {
  const { plan, job } = facts;
  const { launchTemplate, instanceProfile, keyName } = plan;
  const Tags = [...facts.tags];
  const isArn = instanceProfile?.startsWith('arn:') === true;
  return {
    ImageId: imageId,
    InstanceType: instanceType as _InstanceType,
    MinCount: 1,
    MaxCount: 1,
    // Another type or image after a refusal is another request.
    ClientToken: clientToken('instance', job, imageId, instanceType),
    ...(launchTemplate !== null && {
      LaunchTemplate: { LaunchTemplateId: launchTemplate.id, Version: launchTemplate.version },
    }),
    ...networkOf(plan),
    ...(instanceProfile !== null && {
      IamInstanceProfile: isArn ? { Arn: instanceProfile } : { Name: instanceProfile },
    }),
    ...(keyName !== null && { KeyName: keyName }),
    TagSpecifications: [
      { ResourceType: 'instance', Tags },
      { ResourceType: 'volume', Tags },
      { ResourceType: 'network-interface', Tags },
    ],
  };
}

/** A public address can only be chosen with the interface; then all of the network is told there. */
function networkOf(plan: LaunchPlan): Partial<RunInstancesRequest> {
  const { subnetId, securityGroupIds, privateAddress, hasPublicAddress } = plan;
  const groups = securityGroupIds.length > 0 ? [...securityGroupIds] : undefined;
  if (hasPublicAddress !== null) {
    return {
      NetworkInterfaces: [
        {
          DeviceIndex: 0,
          AssociatePublicIpAddress: hasPublicAddress,
          SubnetId: subnetId!,
          ...(groups !== undefined && { Groups: groups }),
          ...(privateAddress !== null && { PrivateIpAddress: privateAddress }),
        },
      ],
    };
  }
  return {
    ...(subnetId !== null && { SubnetId: subnetId }),
    ...(groups !== undefined && { SecurityGroupIds: groups }),
    ...(privateAddress !== null && { PrivateIpAddress: privateAddress }),
  };
}
