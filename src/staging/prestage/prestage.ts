/**
 * Keeps the rolling chains of EBS snapshots: in its turn, each server that is switched on is brought up to
 * its newest whole point, at a bounded rate, so that a launch uploads only what has changed since. Where it
 * stands lies in DATA/ec2, so that a restart goes on; the points that chains have come to are held against
 * retention, for what differs is told from them. What fails is told, and tried again later each time;
 * replication never waits for it, and a launch takes the chain away from its turn.
 */
import type { Timer } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { BorrowedChain, ChainLender } from '../../recovery/ec2/borrowed-chain.ts';
import { effectiveRegion, isSameRegion } from '../../recovery/ec2/region.ts';
import type { ApiPrestage, ApiPrestagedServer } from '../api-types.ts';
import type { PrestagePorts, PrestageSettings } from './ports.ts';
import { ServerChain } from './server-chain.ts';
import { Switches } from './switches.ts';

const LOOK_MS = 10_000;
/** AWS lets an account have a hundred snapshots pending: launches need some. */
const TURNS_AT_ONCE = 64;

export class Prestage implements ChainLender {
  private readonly ports: PrestagePorts;
  private readonly settings: PrestageSettings | null;
  private readonly switches: Switches;
  private readonly chains = new Map<string, ServerChain>();
  private timer: Timer | null = null;
  private looking: Promise<void> = Promise.resolve();
  private isStopped = false;

  private constructor(ports: PrestagePorts, settings: PrestageSettings | null, switches: Switches) {
    this.ports = ports;
    this.settings = settings;
    this.switches = switches;
  }

  /** `settings`: null lends what is there, and moves nothing on. Once it resolves, points are held. ERR_DISK_*. */
  static async open(ports: PrestagePorts, settings: PrestageSettings | null): Promise<Prestage> {
    const folder = `${ports.folder}/ec2`;
    if (settings !== null) await ports.disk.makeDirectory(folder);
    const switches = await Switches.open(ports, folder, settings?.servers ?? []);
    const prestage = new Prestage(ports, settings, switches);
    for (const { name } of await ports.disk.list(folder)) {
      const server = /^(.+)\.chain$/.exec(name)?.[1];
      if (server !== undefined) await prestage.chain(server);
    }
    return prestage;
  }

  /** From now on turns are made. */
  start(): void {
    if (this.settings !== null) this.look();
  }

  /** Ends what is under way: the next start goes on with it. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.timer?.cancel();
    await this.looking;
    for (const chain of this.chains.values()) await chain.close();
  }

  list(): ApiPrestage {
    const { settings } = this;
    const servers = [...this.chains.values()].map((chain) => this.shown(chain));
    return {
      everyMs: settings?.everyMs ?? null,
      region: settings === null ? null : effectiveRegion(settings.plan.region),
      bytesPerSecond: settings?.bytesPerSecond ?? null,
      servers: servers.sort((a, b) => (a.server < b.server ? -1 : 1)),
    };
  }

  /** Null where staging was started without. */
  find(server: string): ApiPrestagedServer | null {
    const chain = this.chains.get(server);
    return this.settings === null || chain === undefined ? null : this.shown(chain);
  }

  /** Durable once it resolves. ERR_EC2_PRESTAGE_OFF, ERR_SERVER_NOT_FOUND. */
  async switch(server: string, isOn: boolean, endsChain = false): Promise<ApiPrestagedServer> {
    const chain = await this.known(server);
    await this.switches.set(server, isOn);
    if (isOn) chain.ask();
    else await chain.interrupt();
    if (!isOn && endsChain) await chain.end();
    if (!isOn) chain.forgetPoints();
    this.arm(0);
    return this.shown(chain);
  }

  /** A turn now. ERR_EC2_PRESTAGE_OFF, ERR_SERVER_NOT_FOUND; ERR_USAGE where it is switched off. */
  async run(server: string): Promise<ApiPrestagedServer> {
    const chain = await this.known(server);
    if (!this.switches.isOn(server)) {
      throw new UnderstudyError('ERR_USAGE', `the chain of ${server} is switched off`);
    }
    chain.ask();
    this.arm(0);
    return this.shown(chain);
  }

  async borrow(server: string, region: string | null): Promise<BorrowedChain | null> {
    const chain = this.chains.get(server) ?? null;
    if (chain === null || !isSameRegion(chain.region, region)) return null;
    return chain.borrow();
  }

  private shown(chain: ServerChain): ApiPrestagedServer {
    return chain.shown(this.settings !== null && this.switches.isOn(chain.server));
  }

  private async known(server: string): Promise<ServerChain> {
    if (this.settings === null) {
      const message = 'staging was started without --ec2-prestage';
      throw new UnderstudyError('ERR_EC2_PRESTAGE_OFF', message);
    }
    const all = await this.ports.store.servers();
    const isKnown = this.chains.has(server) || all.some((each) => each.server === server);
    if (!isKnown) throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
    return this.chain(server);
  }

  private async chain(server: string): Promise<ServerChain> {
    const known = this.chains.get(server);
    if (known !== undefined) return known;
    const { settings, switches } = this;
    const holds = settings !== null && switches.isOn(server);
    const chain = await ServerChain.open(this.ports, settings, server, holds);
    // Two may have asked for it.
    const first = this.chains.get(server) ?? chain;
    this.chains.set(server, first);
    return first;
  }

  private arm(waitMs: number): void {
    if (this.isStopped || this.settings === null) return;
    this.timer?.cancel();
    this.timer = this.ports.clock.after(waitMs, () => this.look());
  }

  private look(): void {
    this.looking = this.looking
      .then(() => this.beginTurns())
      .catch((error: unknown) => {
        this.ports.log.warn('chains of snapshots could not be looked at', {
          reason: String(error),
        });
      })
      .then(() => this.arm(Math.min(LOOK_MS, this.settings?.everyMs ?? LOOK_MS)));
  }

  private async beginTurns(): Promise<void> {
    if (this.isStopped) return;
    for (const { server } of await this.ports.store.servers()) await this.chain(server);
    const nowMs = this.ports.clock.monotonicMs();
    const due = [...this.chains.values()]
      .filter((chain) => this.switches.isOn(chain.server) && chain.isDue(nowMs))
      // Who waits longest is first: nobody is passed over where there are many.
      .sort((a, b) => a.dueMs - b.dueMs);
    let running = [...this.chains.values()].filter((chain) => chain.isRunning).length;
    for (const chain of due) {
      if (running >= TURNS_AT_ONCE) return;
      running += 1;
      chain.begin();
    }
  }
}
