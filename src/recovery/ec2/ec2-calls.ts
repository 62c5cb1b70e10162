/** The calls of EC2, one function each; the only place that makes them. */
import {
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DeregisterImageCommand,
  DescribeImagesCommand,
  DescribeInstanceStatusCommand,
  DescribeInstancesCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  type Instance,
  RegisterImageCommand,
  type RegisterImageRequest,
  RunInstancesCommand,
  type RunInstancesRequest,
  type Snapshot,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { UnderstudyError } from '../../base/errors.ts';
import type { AwsConnection } from './aws-connection.ts';
import { jobTag } from './tags.ts';

/** What DescribeInstances knows no more. */
export type InstanceState = NonNullable<NonNullable<Instance['State']>['Name']>;

export class Ec2Calls {
  private readonly aws: AwsConnection;
  private readonly stop: AbortSignal;

  constructor(aws: AwsConnection, stop: AbortSignal) {
    this.aws = aws;
    this.stop = stop;
  }

  /** Null where there is none of that id. */
  async snapshot(id: string): Promise<Snapshot | null> {
    const { answer } = await this.aws.askFor(
      { call: 'DescribeSnapshots', subject: id, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }), { abortSignal }),
      ['not-found'],
    );
    return answer?.Snapshots?.[0] ?? null;
  }

  /** Ids of all snapshots that a job has tagged, completed or not. */
  async snapshotsOf(job: string): Promise<string[]> {
    const ids: string[] = [];
    let NextToken: string | undefined;
    do {
      const request = { OwnerIds: ['self'], Filters: byJob(job), ...nextOf(NextToken) };
      const page = await this.aws.ask(
        { call: 'DescribeSnapshots', subject: `of job ${job}`, stop: this.stop },
        (abortSignal) => this.aws.ec2.send(new DescribeSnapshotsCommand(request), { abortSignal }),
      );
      ids.push(...(page.Snapshots ?? []).map((snapshot) => snapshot.SnapshotId!));
      NextToken = page.NextToken || undefined;
    } while (NextToken !== undefined);
    return ids;
  }

  /** 'in-use' while an image refers to it. One that is not there is deleted already. */
  async deleteSnapshot(id: string): Promise<'deleted' | 'in-use'> {
    const { meaning } = await this.aws.askFor(
      { call: 'DeleteSnapshot', subject: id, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }), { abortSignal }),
      ['not-found', 'in-use'],
    );
    return meaning === 'in-use' ? 'in-use' : 'deleted';
  }

  /** Registers an image under a name that is the job's own; the one of an earlier try is taken over. */
  async registerImage(request: RegisterImageRequest, job: string): Promise<string> {
    const { answer } = await this.aws.askFor(
      { call: 'RegisterImage', subject: request.Name!, stop: this.stop },
      (abortSignal) => this.aws.ec2.send(new RegisterImageCommand(request), { abortSignal }),
      ['taken'],
    );
    if (answer !== null) return answer.ImageId!;
    const [image] = await this.images([{ Name: 'name', Values: [request.Name!] }, ...byJob(job)]);
    if (image !== undefined) return image;
    const message = `RegisterImage ${request.Name}: the name is taken by an image of another job`;
    throw new UnderstudyError('ERR_AWS_REFUSED', message);
  }

  imagesOf(job: string): Promise<string[]> {
    return this.images(byJob(job));
  }

  async deregisterImage(id: string): Promise<void> {
    await this.aws.askFor(
      { call: 'DeregisterImage', subject: id, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DeregisterImageCommand({ ImageId: id }), { abortSignal }),
      ['not-found'],
    );
  }

  /** The instance; the same token gives the same instance. */
  async runInstance(request: RunInstancesRequest): Promise<string> {
    const answer = await this.aws.ask(
      {
        ...{ call: 'RunInstances', subject: request.ImageId!, stop: this.stop },
        // An image just registered is not known everywhere yet.
        alsoPassing: /^InvalidAMIID\.(NotFound|Unavailable)$/,
      },
      (abortSignal) => this.aws.ec2.send(new RunInstancesCommand(request), { abortSignal }),
    );
    return answer.Instances![0]!.InstanceId!;
  }

  /** Null where there is none of that id (or none yet). */
  async instance(id: string): Promise<Instance | null> {
    const { answer } = await this.aws.askFor(
      { call: 'DescribeInstances', subject: id, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DescribeInstancesCommand({ InstanceIds: [id] }), { abortSignal }),
      ['not-found'],
    );
    return answer?.Reservations?.[0]?.Instances?.[0] ?? null;
  }

  /** Ids of instances that a job has made, but for those that are terminated. */
  async instancesOf(job: string): Promise<string[]> {
    const answer = await this.aws.ask(
      { call: 'DescribeInstances', subject: `of job ${job}`, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DescribeInstancesCommand({ Filters: byJob(job) }), { abortSignal }),
    );
    return (answer.Reservations ?? [])
      .flatMap((reservation) => reservation.Instances ?? [])
      .filter((instance) => instance.State?.Name !== 'terminated')
      .map((instance) => instance.InstanceId!);
  }

  /** Both status checks of EC2; null while there are none. */
  async checks(id: string): Promise<{ system: string; instance: string } | null> {
    const answer = await this.aws.ask(
      {
        ...{ call: 'DescribeInstanceStatus', subject: id, stop: this.stop },
        alsoPassing: /^InvalidInstanceID\.NotFound$/,
      },
      (abortSignal) => {
        const request = { InstanceIds: [id], IncludeAllInstances: true };
        return this.aws.ec2.send(new DescribeInstanceStatusCommand(request), { abortSignal });
      },
    );
    const status = answer.InstanceStatuses?.[0];
    if (status === undefined) return null;
    return {
      system: status.SystemStatus?.Status ?? 'initializing',
      instance: status.InstanceStatus?.Status ?? 'initializing',
    };
  }

  async terminate(id: string): Promise<void> {
    await this.aws.askFor(
      { call: 'TerminateInstances', subject: id, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new TerminateInstancesCommand({ InstanceIds: [id] }), { abortSignal }),
      ['not-found'],
    );
  }

  /** Shut down in order by EC2, or cut off; one that is stopped already stays so. */
  async stopInstance(id: string, isForced = false): Promise<void> {
    const request = { InstanceIds: [id], ...(isForced && { Force: true }) };
    await this.aws.ask({ call: 'StopInstances', subject: id, stop: this.stop }, (abortSignal) =>
      this.aws.ec2.send(new StopInstancesCommand(request), { abortSignal }),
    );
  }

  async startInstance(id: string): Promise<void> {
    await this.aws.ask({ call: 'StartInstances', subject: id, stop: this.stop }, (abortSignal) =>
      this.aws.ec2.send(new StartInstancesCommand({ InstanceIds: [id] }), { abortSignal }),
    );
  }

  /** Ids of volumes that a job's instances have, or had: they bear its tag. */
  async volumesOf(job: string): Promise<string[]> {
    const answer = await this.aws.ask(
      { call: 'DescribeVolumes', subject: `of job ${job}`, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DescribeVolumesCommand({ Filters: byJob(job) }), { abortSignal }),
    );
    return (answer.Volumes ?? []).map((volume) => volume.VolumeId!);
  }

  /** 'in-use' while an instance has it. One that is not there is deleted already. */
  async deleteVolume(id: string): Promise<'deleted' | 'in-use'> {
    const { meaning } = await this.aws.askFor(
      { call: 'DeleteVolume', subject: id, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DeleteVolumeCommand({ VolumeId: id }), { abortSignal }),
      ['not-found', 'in-use'],
    );
    return meaning === 'in-use' ? 'in-use' : 'deleted';
  }

  private async images(Filters: { Name: string; Values: string[] }[]): Promise<string[]> {
    const answer = await this.aws.ask(
      { call: 'DescribeImages', subject: Filters[0]!.Values[0]!, stop: this.stop },
      (abortSignal) => {
        const request = { Owners: ['self'], Filters };
        return this.aws.ec2.send(new DescribeImagesCommand(request), { abortSignal });
      },
    );
    return (answer.Images ?? []).map((image) => image.ImageId!);
  }
}

const byJob = (job: string) => [{ Name: `tag:${jobTag}`, Values: [job] }];
const nextOf = (NextToken: string | undefined) => (NextToken === undefined ? {} : { NextToken });
