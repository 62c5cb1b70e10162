/** What a region offers: types of instances, in which zones, and where a subnet is. Only looks. */
import {
  type _InstanceType,
  DescribeInstanceTypeOfferingsCommand,
  DescribeInstanceTypesCommand,
  DescribeSubnetsCommand,
  type InstanceTypeInfo,
} from '@aws-sdk/client-ec2';
import type { AwsConnection } from './aws-connection.ts';

export class Ec2Catalog {
  private readonly aws: AwsConnection;
  private readonly stop: AbortSignal;

  constructor(aws: AwsConnection, stop: AbortSignal) {
    this.aws = aws;
    this.stop = stop;
  }

  /** One type by its name: null where the region does not offer it. */
  async instanceType(name: string): Promise<InstanceTypeInfo | null> {
    const { answer } = await this.aws.askFor(
      { call: 'DescribeInstanceTypes', subject: name, stop: this.stop },
      (abortSignal) => {
        const request = { InstanceTypes: [name as _InstanceType] };
        return this.aws.ec2.send(new DescribeInstanceTypesCommand(request), { abortSignal });
      },
      ['instance-type'],
    );
    return answer?.InstanceTypes?.[0] ?? null;
  }

  /** All types of some families: `m6i` stands for m6i.large and its brothers. */
  async instanceTypes(families: readonly string[]): Promise<InstanceTypeInfo[]> {
    const types: InstanceTypeInfo[] = [];
    const Values = families.map((family) => `${family}.*`);
    let NextToken: string | undefined;
    do {
      const Filters = [{ Name: 'instance-type', Values }];
      const request = { Filters, ...nextOf(NextToken) };
      const page = await this.aws.ask(
        { call: 'DescribeInstanceTypes', subject: Values.join(', '), stop: this.stop },
        (abortSignal) =>
          this.aws.ec2.send(new DescribeInstanceTypesCommand(request), { abortSignal }),
      );
      types.push(...(page.InstanceTypes ?? []));
      NextToken = page.NextToken || undefined;
    } while (NextToken !== undefined);
    return types;
  }

  /** The zone of a subnet; null where this region and account have none of that id. */
  async zoneOf(subnet: string): Promise<string | null> {
    const { answer } = await this.aws.askFor(
      { call: 'DescribeSubnets', subject: subnet, stop: this.stop },
      (abortSignal) =>
        this.aws.ec2.send(new DescribeSubnetsCommand({ SubnetIds: [subnet] }), { abortSignal }),
      ['not-found'],
    );
    return answer?.Subnets?.[0]?.AvailabilityZone ?? null;
  }

  /** The zones that offer each of these types, by its name. */
  async zonesOf(types: readonly string[]): Promise<Map<string, string[]>> {
    const zones = new Map<string, string[]>();
    let NextToken: string | undefined;
    do {
      const request = {
        LocationType: 'availability-zone' as const,
        Filters: [{ Name: 'instance-type', Values: [...types] }],
        ...nextOf(NextToken),
      };
      const page = await this.aws.ask(
        { call: 'DescribeInstanceTypeOfferings', subject: types.join(', '), stop: this.stop },
        (abortSignal) =>
          this.aws.ec2.send(new DescribeInstanceTypeOfferingsCommand(request), { abortSignal }),
      );
      for (const { InstanceType, Location } of page.InstanceTypeOfferings ?? []) {
        zones.set(InstanceType!, [...(zones.get(InstanceType!) ?? []), Location!]);
      }
      NextToken = page.NextToken || undefined;
    } while (NextToken !== undefined);
    return zones;
  }
}

const nextOf = (NextToken: string | undefined) => (NextToken === undefined ? {} : { NextToken });
