/**
 * The proof, end to end: a real Debian in a virtual machine, protected by our agent as a service on its own
 * root disk. It writes a ledger and reports each commit; it is drilled; its plug is pulled; it is brought back
 * from its last point as another machine on another bus, and later home to its own disk. Whatever was
 * committed before a cut is there.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ApiFailback, ApiJob } from '../../src/staging/api-types.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { ROOT_START } from '../tools/debian-disk.ts';
import { type Life, ledgerOnImage, type Row } from '../tools/ledger.ts';
import { attachLoop } from './helpers/device.ts';
import { consoleText, GUEST_MS, Guest, type Hand, untilGuest } from './helpers/guest.ts';
import {
  MEMORY,
  makeWorld,
  SERVER,
  Story,
  serverOf,
  tellConsoles,
  type World,
} from './helpers/proof-world.ts';
import { withScratch } from './helpers/scratch.ts';
import { waitFor } from './helpers/wait.ts';

const PROOF_MS = 1_800_000;
/** Another machine than the source: another bus. */
const machine = ['--bus', 'nvme', '--accel', 'tcg', '--memory', `${MEMORY}MiB`];

interface AgentStatusJson {
  readonly state: string;
  readonly volumes: readonly { volume: string; path: string; tracker: { backend: string } }[];
}

async function agentStatus(hand: Hand): Promise<AgentStatusJson> {
  const line = 'understudy agent status --json --config /etc/understudy/agent.json';
  const { exitCode, out } = await hand.run(line);
  if (exitCode !== 0) throw new Error(`agent status: ${out}`);
  return JSON.parse(out) as AgentStatusJson;
}

const jobConsole = ({ folder }: ApiJob): string => join(folder, 'console.log');

const isContinuous = async (world: World): Promise<boolean> =>
  (await serverOf(world))?.state === 'continuous';

/** A drill while the source goes on: nothing of the source's replication changes. */
async function drillBeside(world: World, source: string): Promise<void> {
  const { staging, story, ledger } = world;
  const states = new Set<string>();
  const look = async () => states.add((await serverOf(world))!.state);
  const timer = setInterval(() => void look().catch((error) => states.add(String(error))), 500);
  const before = (await serverOf(world))!.points;
  const from = Date.now();
  const words = ['--server', SERVER, '--check', '--prepare', 'none', ...machine];
  let job = await staging.json<ApiJob>('drill', 'start', ...words);
  const isOver = async () => {
    job = await world.rest.call<ApiJob>('GET', `/v1/jobs/${job.id}`);
    return job.state === 'cleaned';
  };
  await waitFor('the drill', isOver, { timeoutMs: GUEST_MS, everyMs: 500 }).finally(() =>
    clearInterval(timer),
  );
  expect(job.check).toMatchObject({ passed: true });
  const during = (await serverOf(world))!.points - before;
  const rows = ledger.of(source).filter(({ hostMs }) => hostMs >= from).length;
  story.tell(
    `drill: up after ${(job.check!.bootMs / 1000).toFixed(1)} s; meanwhile ${during} points, ` +
      `${rows} rows, states ${[...states].join(', ')}`,
  );
  expect(consoleText(jobConsole(job))).toMatch(/Debian GNU\/Linux 12 ledger ttyS0/);
  expect(during).toBeGreaterThan(0);
  expect([...states].filter((state) => !/^(?:continuous|creating|backlog)/.test(state))).toEqual(
    [],
  );
}

/** Rows of `reports` that had been committed at an instant of the guest's clock are in `rows`. */
function expectHeld(world: World, life: string, point: ListedPoint, rows: readonly Row[]): void {
  const cutMs = Date.parse(point.time);
  const due = world.ledger.of(life).filter(({ guestMs }) => guestMs <= cutMs);
  expect(due.length).toBeGreaterThan(10);
  const lost = due.filter(({ n, hash }) => rows[n]?.hash !== hash);
  expect(lost, 'rows that were committed before the cut and are not there').toEqual([]);
}

describe('a server is brought back', () => {
  it(
    'from its last point, with all that was committed before the cut',
    async () => {
      await withScratch('proof', async (scratch) => {
        try {
          await prove(await makeWorld(scratch, new Story()));
        } catch (error) {
          tellConsoles(scratch.path('data/jobs'));
          throw error;
        }
      });
    },
    PROOF_MS,
  );
});

async function prove(world: World): Promise<void> {
  const { scratch, staging, ledger, hands, disk, story } = world;
  const uuid = randomUUID();
  const source = new Guest(scratch, 'source', { disk, uuid, memoryMiB: MEMORY });
  await source.until('the hand', () => hands.find((hand) => hand.uuid === uuid) !== undefined);
  story.tell('the source has booted');
  await source.until('a row', () => ledger.of(uuid).length > 0);
  await source.until('a continuous state', () => isContinuous(world));
  story.tell(`initial sync is done, ${ledger.of(uuid).length} rows are committed meanwhile`);
  const status = await agentStatus(hands.find((hand) => hand.uuid === uuid)!);
  expect(status.volumes).toMatchObject([
    { volume: 'root', path: '/dev/vda', tracker: { backend: 'bpf' } },
  ]);
  story.tell('agent status');
  await drillBeside(world, uuid);

  const plugMs = Date.now();
  await source.pullPlug();
  const last = ledger.of(uuid).at(-1)!;
  story.tell(`the plug is pulled after row ${last.n}`);
  const instance = await failOver(world, uuid);
  const point = (await staging.points('--server', SERVER)).find(
    ({ id }) => id === instance.job.point,
  )!;
  const cutMs = Date.parse(point.time) - ledger.clockAheadMs(uuid);
  const image = scratch.path('point.raw');
  await staging.export(point.id, 'root', image);
  const rows = ledgerOnImage(image, ROOT_START, scratch.folder);
  expectHeld(world, uuid, point, rows);
  expect(instance.life).toMatchObject({ verdict: 'ok', rows: rows.at(-1)!.n });
  const lost = `${last.n - rows.at(-1)!.n} of ${last.n} rows lost`;
  story.measure('RPO', `${plugMs - cutMs} ms`, `a cut every 2 s, plug pulled under load; ${lost}`);
  const how = 'failover start to the login prompt, Debian 12, QEMU without KVM';
  story.measure('RTO', `${(instance.rtoMs / 1000).toFixed(1)} s`, how);
  await failBack(world, instance, uuid);
}

/**
 * Home: the instance goes on as the server; what it wrote is brought to the original's disk, which lies in
 * this machine as in a rescue system; the original boots again, with the rows of both lives.
 */
async function failBack(world: World, instance: Instance, uuid: string): Promise<void> {
  const { scratch, staging, story, ledger, hands, disk } = world;
  const { job, life } = instance;
  // It carries the source's agent, key and name, and is not the source: refused, and told whose it is.
  const refused = async () => (await serverOf(world))!.refused;
  const isRefused = async () => (await refused()).length > 0;
  await waitFor('the refusal', isRefused, { timeoutMs: GUEST_MS, everyMs: 500 });
  expect(await refused()).toMatchObject([{ job: job.id }]);
  expect((await serverOf(world))!.newestPoint!.id).toBe(job.point);
  const begin = ['--server', SERVER, '--job', job.id, '--yes'];
  const begun = await staging.json<ApiFailback>('failback', 'start', ...begin);
  const isReady = async () => {
    const now = await world.rest.call<ApiFailback>('GET', `/v1/failbacks/${begun.job}`);
    return now.phase === 'ready';
  };
  await waitFor('the instance as the server', isReady, { timeoutMs: GUEST_MS, everyMs: 500 });
  story.tell(
    `the instance replicates as the server; ${ledger.of(life.life).length} rows of its own`,
  );
  expect((await instance.hand.run('systemctl stop ledger')).exitCode).toBe(0);
  const lastOfInstance = ledger.of(life.life).at(-1)!;
  const loop = attachLoop(scratch, disk);
  const words = ['failback', 'run', '--server', SERVER, '--map', `root=${loop.device}`];
  const report = await staging.json<HomeReport>(...words, '--finish', '--yes');
  loop.detach();
  const [written] = report.volumes;
  const wrote = `${(written!.writtenBytes / 2 ** 20).toFixed(1)} MiB written`;
  const part = `${written!.different} of ${written!.chunks} chunks differed`;
  story.measure('failback onto the original disk', wrote, part);
  expect(report).toMatchObject({ verified: true });
  expect(written!.different).toBeLessThan(written!.chunks / 5);
  await staging.run('failover', 'stop', job.id, '--timeout', '1s');

  const home = new Guest(scratch, 'home', { disk, uuid, memoryMiB: MEMORY });
  const earlier = ledger.lives.length;
  await home.until('the ledger at home', () => ledger.lives.length > earlier);
  const atHome = ledger.lives.at(-1)!;
  expect(atHome).toMatchObject({ life: uuid, verdict: 'ok' });
  // The one that it was stopped at may have been committed, and not reported any more.
  expect([lastOfInstance.n, lastOfInstance.n + 1]).toContain(atHome.rows);
  await home.until('its agent', async () => (await serverOf(world))!.connected);
  const hand = hands.find((each) => each.uuid === uuid);
  expect((await hand!.run('findmnt -no SOURCE /')).out).toMatch(/^\/dev\/vda2/);
  await home.pullPlug();
  const rows = ledgerOnImage(disk, ROOT_START, scratch.folder);
  const missing = ledger.of(life.life).filter(({ n, hash }) => rows[n]?.hash !== hash);
  expect(missing, 'rows of the instance that did not come home').toEqual([]);
  story.tell(
    `home: ${rows.length} rows of ${new Set(rows.map((row) => row.life)).size - 1} machines`,
  );
}

interface HomeReport {
  readonly verified: boolean;
  readonly volumes: readonly { chunks: number; different: number; writtenBytes: number }[];
}

interface Instance {
  readonly job: ApiJob;
  readonly life: Life;
  readonly hand: Hand;
  readonly rtoMs: number;
}

/** From the command to a machine on another bus that answers, its file system clean. */
async function failOver(world: World, source: string): Promise<Instance> {
  const { staging, hands, ledger, story } = world;
  const beganMs = performance.now();
  const words = ['--server', SERVER, '--prepare', 'none', ...machine];
  const started = await staging.json<ApiJob>('failover', 'start', ...words);
  const path = jobConsole(started);
  const until = (what: string, isSo: () => boolean) => untilGuest(what, path, () => true, isSo);
  await until('the login prompt', () => consoleText(path).includes(`${SERVER} login: `));
  const rtoMs = Math.round(performance.now() - beganMs);
  const isOther = (uuid: string) => uuid !== source;
  await until('the hand', () => hands.find(({ uuid }) => isOther(uuid)) !== undefined);
  const hand = hands.find(({ uuid }) => isOther(uuid))!;
  await until('the ledger', () => ledger.of(hand.uuid).length > 0);
  const life = ledger.lives.find((each) => each.life === hand.uuid)!;
  const said = consoleText(path);
  expect(said).toMatch(/recovering journal/);
  expect(said).toMatch(/debian-root: clean,/);
  expect((await hand.run('findmnt -no SOURCE /')).out).toMatch(/^\/dev\/nvme0n1p2/);
  const job = await staging.json<ApiJob>('job', 'show', started.id);
  story.tell(`failover ${job.id}: ${job.state} (${job.phase}), rows go on from ${life.rows}`);
  return { job, life, hand, rtoMs };
}
