/**
 * A stand-in for the part of EC2 that a launch needs, over the same snapshots as the EBS double: an image
 * needs completed snapshots and keeps them from being deleted, names are unique, tokens are idempotent and
 * conflict, instances take a while to run and to pass their checks. Query protocol: forms in, XML out.
 */
import type { EbsDouble } from './ebs-double.ts';

export class Ec2Refusal extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

type Form = Readonly<Record<string, string>>;
type Xml = string;

export interface DoubleImage {
  readonly id: string;
  readonly name: string;
  readonly form: Form;
  readonly tags: Readonly<Record<string, string>>;
  readonly snapshots: readonly string[];
}

export interface DoubleInstance {
  readonly id: string;
  readonly imageId: string;
  readonly type: string;
  readonly form: Form;
  readonly tags: Readonly<Record<string, string>>;
  state: 'pending' | 'running' | 'stopping' | 'stopped' | 'shutting-down' | 'terminated';
  polls: number;
}

export interface DoubleVolume {
  readonly id: string;
  readonly instanceId: string;
  readonly snapshotId: string;
  readonly deletes: boolean;
  readonly tags: Readonly<Record<string, string>>;
}

export interface DoubleType {
  readonly name: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly architecture: string;
  readonly bootModes: readonly string[];
}

const ALL_ZONES = ['us-east-1a', 'us-east-1b', 'us-east-1c'];

const type = (name: string, cpus: number, gib: number, architecture = 'x86_64'): DoubleType => ({
  name,
  cpus,
  memoryMiB: gib * 1024,
  architecture,
  bootModes: architecture === 'arm64' ? ['uefi'] : ['legacy-bios', 'uefi'],
});

export class Ec2Double {
  readonly images = new Map<string, DoubleImage>();
  readonly instances = new Map<string, DoubleInstance>();
  types: DoubleType[] = [
    type('m6i.large', 2, 8),
    type('m6i.xlarge', 4, 16),
    type('c6i.large', 2, 4),
    type('c6i.xlarge', 4, 8),
    type('r6i.large', 2, 16),
    type('m7g.large', 2, 8, 'arm64'),
  ];
  readonly volumes = new Map<string, DoubleVolume>();
  /** Subnets and their zones. */
  readonly subnets = new Map([
    ['subnet-0a', 'us-east-1a'],
    ['subnet-0b', 'us-east-1b'],
  ]);
  /** Types that only some zones offer; the others are everywhere. */
  readonly offered = new Map<string, readonly string[]>();
  /** One that does not shut down in order. */
  isStubborn = false;
  /** What DescribeInstanceStatus says once the instance runs. */
  checks = 'ok';
  /** So often one has to ask before an instance has gone on to its next state. */
  patience = 2;
  /** A type that exists but for which there is no room. */
  exhausted = '';
  private readonly ebs: EbsDouble;
  private readonly tokens = new Map<string, { asked: string; id: string }>();
  private count = 0;

  constructor(ebs: EbsDouble) {
    this.ebs = ebs;
  }

  answer(form: Form): Xml {
    const actions: Record<string, (form: Form) => Xml> = {
      DescribeSnapshots: (asked) => this.describeSnapshots(asked),
      DeleteSnapshot: (asked) => this.deleteSnapshot(asked),
      RegisterImage: (asked) => this.registerImage(asked),
      DescribeImages: (asked) => this.describeImages(asked),
      DeregisterImage: (asked) => this.deregisterImage(asked),
      RunInstances: (asked) => this.runInstances(asked),
      DescribeInstances: (asked) => this.describeInstances(asked),
      DescribeInstanceStatus: (asked) => this.describeStatus(asked),
      TerminateInstances: (asked) => this.terminate(asked),
      DescribeInstanceTypes: (asked) => this.describeTypes(asked),
      DescribeInstanceTypeOfferings: (asked) => this.describeOfferings(asked),
      DescribeSubnets: (asked) => this.describeSubnets(asked),
      DescribeVolumes: (asked) => this.describeVolumes(asked),
      DeleteVolume: (asked) => this.deleteVolume(asked),
      StopInstances: (asked) => this.stopInstances(asked),
      StartInstances: (asked) => this.startInstances(asked),
    };
    const action = actions[form.Action!];
    if (action === undefined) throw new Ec2Refusal('InvalidAction', form.Action!);
    return `<${form.Action}Response><requestId>r</requestId>${action(form)}</${form.Action}Response>`;
  }

  private describeSnapshots(form: Form): Xml {
    this.ebs.age();
    const ids = listOf(form, 'SnapshotId');
    for (const id of ids) if (!this.ebs.snapshots.has(id)) throw missing('InvalidSnapshot', id);
    const shown = [...this.ebs.snapshots.values()]
      .filter(({ id }) => ids.length === 0 || ids.includes(id))
      .filter(({ tags }) => fits(form, { tags }));
    return set('snapshotSet', shown, (snapshot) =>
      fields({
        snapshotId: snapshot.id,
        status: snapshot.state,
        volumeSize: snapshot.sizeGiB,
        encrypted: snapshot.kmsKeyArn !== null,
      }),
    );
  }

  private deleteSnapshot({ SnapshotId: id }: Form): Xml {
    if (!this.ebs.snapshots.has(id!)) throw missing('InvalidSnapshot', id!);
    const user = [...this.images.values()].find((image) => image.snapshots.includes(id!));
    if (user !== undefined) throw new Ec2Refusal('InvalidSnapshot.InUse', `used by ${user.id}`);
    this.ebs.snapshots.delete(id!);
    return '<return>true</return>';
  }

  private registerImage(form: Form): Xml {
    const name = form.Name!;
    if ([...this.images.values()].some((image) => image.name === name)) {
      throw new Ec2Refusal('InvalidAMIName.Duplicate', `AMI name ${name} is already in use`);
    }
    const mappings = structuresOf(form, 'BlockDeviceMapping');
    if (!mappings.some((mapping) => mapping.DeviceName === form.RootDeviceName)) {
      throw new Ec2Refusal('InvalidBlockDeviceMapping', 'no mapping for the root device');
    }
    const snapshots = mappings.map((mapping) => mapping['Ebs.SnapshotId']!);
    for (const id of snapshots) {
      const snapshot = this.ebs.snapshots.get(id);
      if (snapshot === undefined) throw missing('InvalidSnapshot', id);
      if (snapshot.state !== 'completed')
        throw new Ec2Refusal('IncorrectState', `${id} is pending`);
    }
    const id = this.newId('ami');
    this.images.set(id, { id, name, form, tags: tagsIn(form, 'image'), snapshots });
    return fields({ imageId: id });
  }

  private describeImages(form: Form): Xml {
    const shown = [...this.images.values()].filter((image) => fits(form, image));
    return set('imagesSet', shown, ({ id, name }) => fields({ imageId: id, name }));
  }

  private deregisterImage({ ImageId: id }: Form): Xml {
    if (!this.images.delete(id!)) throw missing('InvalidAMIID', id!);
    return '<return>true</return>';
  }

  private runInstances(form: Form): Xml {
    const asked = JSON.stringify(form);
    const earlier = this.tokens.get(form.ClientToken!);
    if (earlier !== undefined && earlier.asked !== asked) {
      throw new Ec2Refusal('IdempotentParameterMismatch', 'the token had other parameters');
    }
    if (earlier === undefined) {
      if (!this.images.has(form.ImageId!)) throw missing('InvalidAMIID', form.ImageId!);
      if (!this.types.some(({ name }) => name === form.InstanceType)) {
        throw new Ec2Refusal('Unsupported', `${form.InstanceType} is not supported in the zone`);
      }
      const subnet = form.SubnetId ?? form['NetworkInterface.1.SubnetId'];
      if (subnet !== undefined && !this.subnets.has(subnet))
        throw missing('InvalidSubnetID', subnet);
      const zones = this.offered.get(form.InstanceType!);
      if (subnet !== undefined && zones?.includes(this.subnets.get(subnet)!) === false) {
        throw new Ec2Refusal('Unsupported', `${form.InstanceType} is not supported in the zone`);
      }
      if (form.InstanceType === this.exhausted) {
        throw new Ec2Refusal('InsufficientInstanceCapacity', `no room for ${form.InstanceType}`);
      }
      const id = this.newId('i');
      const facts = { id, imageId: form.ImageId!, type: form.InstanceType!, form };
      const tags = tagsIn(form, 'instance');
      this.instances.set(id, { ...facts, tags, state: 'pending', polls: 0 });
      this.tokens.set(form.ClientToken!, { asked, id });
      this.attach(id, this.images.get(form.ImageId!)!, tagsIn(form, 'volume'));
    }
    const id = this.tokens.get(form.ClientToken!)!.id;
    return set('instancesSet', [this.instances.get(id)!], (instance) => this.shown(instance));
  }

  private attach(instanceId: string, image: DoubleImage, tags: Record<string, string>): void {
    for (const mapping of structuresOf(image.form, 'BlockDeviceMapping')) {
      const id = this.newId('vol');
      const deletes = mapping['Ebs.DeleteOnTermination'] === 'true';
      const snapshotId = mapping['Ebs.SnapshotId']!;
      this.volumes.set(id, { id, instanceId, snapshotId, deletes, tags });
    }
  }

  private isAttached({ instanceId }: DoubleVolume): boolean {
    const state = this.instances.get(instanceId)?.state;
    return state !== undefined && state !== 'terminated';
  }

  private describeVolumes(form: Form): Xml {
    const shown = [...this.volumes.values()].filter((volume) => fits(form, volume));
    return set('volumeSet', shown, (volume) =>
      fields({ volumeId: volume.id, status: this.isAttached(volume) ? 'in-use' : 'available' }),
    );
  }

  private deleteVolume({ VolumeId: id }: Form): Xml {
    const volume = this.volumes.get(id!);
    if (volume === undefined) throw missing('InvalidVolume', id!);
    if (this.isAttached(volume)) throw new Ec2Refusal('VolumeInUse', `${id} is attached`);
    this.volumes.delete(id!);
    return '<return>true</return>';
  }

  private stopInstances(form: Form): Xml {
    for (const id of listOf(form, 'InstanceId')) {
      const instance = this.instances.get(id);
      if (instance === undefined) throw missing('InvalidInstanceID', id);
      if (!['running', 'pending', 'stopping', 'stopped'].includes(instance.state)) {
        throw new Ec2Refusal('IncorrectInstanceState', `${id} is ${instance.state}`);
      }
      if (instance.state === 'stopped') continue;
      instance.state = 'stopping';
      instance.polls = 0;
      if (form.Force === 'true') this.isStubborn = false;
    }
    return '<instancesSet/>';
  }

  private startInstances(form: Form): Xml {
    for (const id of listOf(form, 'InstanceId')) {
      const instance = this.instances.get(id);
      if (instance === undefined) throw missing('InvalidInstanceID', id);
      if (instance.state === 'running' || instance.state === 'pending') continue;
      if (instance.state !== 'stopped') {
        throw new Ec2Refusal('IncorrectInstanceState', `${id} is ${instance.state}`);
      }
      instance.state = 'pending';
      instance.polls = 0;
    }
    return '<instancesSet/>';
  }

  private describeSubnets(form: Form): Xml {
    const ids = listOf(form, 'SubnetId');
    for (const id of ids) if (!this.subnets.has(id)) throw missing('InvalidSubnetID', id);
    return set('subnetSet', ids, (id) =>
      fields({ subnetId: id, availabilityZone: this.subnets.get(id)! }),
    );
  }

  private describeOfferings(form: Form): Xml {
    if (form.LocationType !== 'availability-zone') {
      throw new Ec2Refusal('InvalidParameterValue', `${form.LocationType}`);
    }
    const names = structuresOf(form, 'Filter').flatMap((filter) => listOf(filter, 'Value'));
    const shown = this.types
      .filter(({ name }) => names.includes(name))
      .flatMap(({ name }) => (this.offered.get(name) ?? ALL_ZONES).map((zone) => ({ name, zone })));
    return set('instanceTypeOfferingSet', shown, ({ name, zone }) =>
      fields({ instanceType: name, locationType: 'availability-zone', location: zone }),
    );
  }

  private describeInstances(form: Form): Xml {
    const ids = listOf(form, 'InstanceId');
    for (const id of ids) if (!this.instances.has(id)) throw missing('InvalidInstanceID', id);
    const shown = [...this.instances.values()]
      .filter(({ id }) => ids.length === 0 || ids.includes(id))
      .filter((instance) => fits(form, instance));
    for (const instance of shown) this.goOn(instance);
    const instances = set('instancesSet', shown, (instance) => this.shown(instance));
    return `<reservationSet><item>${instances}</item></reservationSet>`;
  }

  private describeStatus(form: Form): Xml {
    const shown = listOf(form, 'InstanceId').map((id) => this.instances.get(id)!);
    return set('instanceStatusSet', shown, (instance) => {
      instance.polls += 1;
      const status = instance.polls > this.patience + 1 ? this.checks : 'initializing';
      return (
        fields({ instanceId: instance.id }) +
        `<systemStatus><status>${status}</status></systemStatus>` +
        `<instanceStatus><status>${status}</status></instanceStatus>`
      );
    });
  }

  private terminate(form: Form): Xml {
    for (const id of listOf(form, 'InstanceId')) {
      const instance = this.instances.get(id);
      if (instance === undefined) throw missing('InvalidInstanceID', id);
      if (instance.state !== 'terminated') instance.state = 'shutting-down';
    }
    return '<instancesSet/>';
  }

  private describeTypes(form: Form): Xml {
    const names = listOf(form, 'InstanceType');
    for (const name of names) {
      if (this.types.some((held) => held.name === name)) continue;
      throw new Ec2Refusal('InvalidInstanceType', `The following are invalid: [${name}]`);
    }
    const patterns = structuresOf(form, 'Filter')
      .filter((filter) => filter.Name === 'instance-type')
      .flatMap((filter) => listOf(filter, 'Value'));
    const shown = this.types.filter(
      ({ name }) =>
        (names.length === 0 || names.includes(name)) &&
        (patterns.length === 0 || patterns.some((text) => name.startsWith(text.slice(0, -1)))),
    );
    return set('instanceTypeSet', shown, (held) => {
      const modes = held.bootModes.map((mode) => `<item>${mode}</item>`).join('');
      return (
        fields({ instanceType: held.name }) +
        `<vCpuInfo><defaultVCpus>${held.cpus}</defaultVCpus></vCpuInfo>` +
        `<memoryInfo><sizeInMiB>${held.memoryMiB}</sizeInMiB></memoryInfo>` +
        `<supportedBootModes>${modes}</supportedBootModes>` +
        '<processorInfo><supportedArchitectures>' +
        `<item>${held.architecture}</item></supportedArchitectures></processorInfo>`
      );
    });
  }

  private goOn(instance: DoubleInstance): void {
    instance.polls += 1;
    const isPatient = instance.polls < this.patience;
    if (instance.state === 'pending' && !isPatient) instance.state = 'running';
    if (instance.state === 'stopping' && !isPatient && !this.isStubborn) instance.state = 'stopped';
    if (instance.state !== 'shutting-down' || isPatient) return;
    instance.state = 'terminated';
    for (const volume of this.volumes.values()) {
      if (volume.instanceId === instance.id && volume.deletes) this.volumes.delete(volume.id);
    }
  }

  private shown({ id, state, type: name, imageId }: DoubleInstance): Xml {
    const facts = fields({ instanceId: id, imageId, instanceType: name });
    return `${facts}<instanceState><name>${state}</name></instanceState>${fields({ privateIpAddress: '10.0.0.7' })}`;
  }

  private newId(kind: string): string {
    this.count += 1;
    return `${kind}-${this.count.toString(16).padStart(17, '0')}`;
  }
}

const missing = (what: string, id: string) =>
  new Ec2Refusal(`${what}.NotFound`, `The ID '${id}' does not exist`);

const fields = (all: Record<string, string | number | boolean>): Xml =>
  Object.entries(all)
    .map(([name, value]) => `<${name}>${value}</${name}>`)
    .join('');

const set = <T>(name: string, items: readonly T[], show: (item: T) => Xml): Xml =>
  `<${name}>${items.map((item) => `<item>${show(item)}</item>`).join('')}</${name}>`;

/** `Name.1`, `Name.2`, ... */
function listOf(form: Form, name: string): string[] {
  return Object.keys(form)
    .filter((key) => new RegExp(`^${name}\\.\\d+$`).test(key))
    .map((key) => form[key]!);
}

/** `Name.1.Field`, ...: one object for each number. */
function structuresOf(form: Form, name: string): Form[] {
  const found = new Map<string, Record<string, string>>();
  for (const [key, value] of Object.entries(form)) {
    const match = new RegExp(`^${name}\\.(\\d+)\\.(.+)$`).exec(key);
    if (match === null) continue;
    const held = found.get(match[1]!) ?? {};
    held[match[2]!] = value;
    found.set(match[1]!, held);
  }
  return [...found.values()];
}

function tagsIn(form: Form, resource: string): Record<string, string> {
  const wanted = structuresOf(form, 'TagSpecification').filter(
    (specification) => specification.ResourceType === resource,
  );
  const tags = wanted.flatMap((specification) => structuresOf(specification, 'Tag'));
  return Object.fromEntries(tags.map(({ Key, Value }) => [Key!, Value!]));
}

/** Filters by tag and by name; any other one is a defect of the test. */
function fits(
  form: Form,
  held: { tags: Readonly<Record<string, string>>; name?: string },
): boolean {
  return structuresOf(form, 'Filter').every((filter) => {
    const values = listOf(filter, 'Value');
    if (filter.Name === 'name') return values.includes(held.name ?? '');
    const tag = /^tag:(.+)$/.exec(filter.Name!)?.[1];
    if (tag === undefined) throw new Ec2Refusal('InvalidParameterValue', filter.Name!);
    return values.includes(held.tags[tag] ?? '');
  });
}
