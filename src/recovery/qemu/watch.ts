/**
 * Follows a running machine until it ends, is stopped, or is left to itself: the boot check, the background
 * copy, trouble with disks. A drill that fails its check is ended; a failover never is, whatever fails here:
 * its machine serves, and the job tells.
 */
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import { damageText } from '../damage.ts';
import type { CheckResult, Launch, LaunchEnd } from '../launcher.ts';
import { BackgroundCopy, type CopyState } from './background-copy.ts';
import { ConsoleReader } from './console.ts';
import { diskFolder, isFailover, serveAgain } from './disks.ts';
import { probeOf } from './options.ts';
import { type ProbeAnswer, tryProbe } from './probe.ts';
import type { Qmp } from './qmp.ts';
import { SerialProbe } from './serial-probe.ts';
import { lookForTrouble } from './trouble.ts';
import {
  consolePath,
  endVm,
  gone,
  isVmAlive,
  reach,
  shutDown,
  softly,
  takeScreenshot,
  type Vm,
  type VmMeans,
  wasKilled,
} from './vm.ts';

const LOOK_MS = 250;
const FOLLOW_MS = 1000;
const REACH_MS = 5000;

export class Watch {
  private vm: Vm;
  private readonly launch: Launch;
  private readonly means: VmMeans;
  private readonly console: ConsoleReader;
  private readonly serial: SerialProbe | null;
  private readonly copy: BackgroundCopy | null;
  private isCheckDue: boolean;
  private followedMs = Number.NEGATIVE_INFINITY;
  private trouble: string | null = null;
  private lastAnswer: string | null = null;
  private lastError = '';

  constructor(vm: Vm, launch: Launch, means: VmMeans) {
    this.vm = vm;
    this.launch = launch;
    this.means = means;
    this.console = new ConsoleReader(consolePath(launch));
    const probe = probeOf(launch.options);
    const paths = { consolePath: consolePath(launch), probeKeys: means.probeKeys };
    this.serial = probe.kind === 'serial' ? new SerialProbe(probe, launch, paths) : null;
    this.copy = launch.options.standAlone === true ? new BackgroundCopy(launch) : null;
    this.isCheckDue = launch.options.check === true && launch.notes.isChecked !== true;
  }

  close(): void {
    this.serial?.close();
    this.vm.qmp.close();
  }

  async untilEnd(): Promise<LaunchEnd> {
    const { launch } = this;
    await this.tellPhase();
    for (;;) {
      if (launch.stop.aborted) return this.end();
      if (launch.leave.aborted) return 'left';
      if (await this.survives(() => this.round())) return 'done';
      if (!isVmAlive(launch)) return this.endedItself();
      await sleep(launch.clock, LOOK_MS);
    }
  }

  /** True: the machine was ended, for its check has passed. */
  private async round(): Promise<boolean> {
    if (this.isCheckDue && (await this.look())) return true;
    if (this.console.trim()) {
      this.launch.say('the console log had grown too large and was emptied');
    }
    await this.followSometimes();
    return false;
  }

  /** What fails here ends a drill. The machine of a failover serves on: it is told, and tried again. */
  private async survives(step: () => Promise<boolean>): Promise<boolean> {
    const { launch } = this;
    try {
      return await step();
    } catch (error) {
      if (!isFailover(launch)) throw error;
      if (!isVmAlive(launch)) return false;
      const message = error instanceof Error ? error.message : String(error);
      if (message !== this.lastError) launch.say(`the watch over the machine: ${message}`);
      this.lastError = message;
      await this.reconnect();
      return false;
    }
  }

  private async end(): Promise<LaunchEnd> {
    const { launch, vm } = this;
    if (!isFailover(launch)) {
      await endVm(vm, launch);
      return 'done';
    }
    await softly(launch, launch.phase('shutting down'));
    const isOrderly = await shutDown(vm, launch);
    if (launch.leave.aborted && isVmAlive(launch)) return 'left';
    launch.say(
      isOrderly ? 'the guest has shut down' : 'the guest did not shut down in time: cut off',
    );
    return 'done';
  }

  private async endedItself(): Promise<LaunchEnd> {
    if (this.isCheckDue) await this.fail('the virtual machine ended before the check');
    if (wasKilled(this.launch)) throw gone(this.launch);
    this.launch.say('the virtual machine has ended by itself');
    return 'done';
  }

  private async tellPhase(): Promise<void> {
    const phase = this.trouble ?? (this.isCheckDue ? 'checking' : 'up');
    await softly(this.launch, this.launch.phase(phase));
  }

  private async followSometimes(): Promise<void> {
    const { launch } = this;
    const nowMs = launch.clock.monotonicMs();
    if (nowMs - this.followedMs < FOLLOW_MS) return;
    this.followedMs = nowMs;
    if (isVmAlive(launch)) {
      await serveAgain(launch, this.copy?.readers ?? [...launch.point.volumes.keys()]);
    }
    if (this.copy === null && !isFailover(launch)) return;
    if (isVmAlive(launch)) await this.follow(this.vm.qmp);
  }

  private async follow(qmp: Qmp): Promise<void> {
    const { launch } = this;
    const state: CopyState | null = this.copy === null ? null : await this.copy.step(qmp);
    const trouble = await lookForTrouble(
      qmp,
      state,
      diskFolder(launch),
      launch.damage().length > 0,
    );
    const isNews = (trouble === null) !== (this.trouble === null);
    this.trouble = trouble;
    if (!isNews) return;
    launch.say(trouble ?? 'goes on');
    await this.tellPhase();
  }

  /** It may be the control socket that has failed: another connection, where there is one. */
  private async reconnect(): Promise<void> {
    const { launch, vm } = this;
    vm.qmp.close();
    const qmp = await reach(launch, REACH_MS).catch(() => null);
    if (qmp !== null) this.vm = { ...vm, qmp };
  }

  private bootMs(): number {
    return Math.round(this.launch.clock.wallMs() - this.vm.startedMs);
  }

  /** True: the check passed and the machine was ended. */
  private async look(): Promise<boolean> {
    const { launch, vm } = this;
    // It may come up all the same: what it needs later may be lost.
    const damage = launch.damage();
    if (damage.length > 0) {
      await this.fail(damageText(launch.point.id, damage));
      return false;
    }
    const answer = await this.answer().catch((error: Error) => {
      if (!isFailover(launch)) throw error;
      return { isGood: false, detail: error.message };
    });
    if (!this.isCheckDue) return false;
    if (answer?.isGood !== true) {
      this.lastAnswer = answer?.detail ?? this.lastAnswer;
      if (this.bootMs() <= Number(launch.options.timeoutMs)) return false;
      const limit = formatDuration(Number(launch.options.timeoutMs));
      const last = this.lastAnswer === null ? '' : `; the last one: ${this.lastAnswer}`;
      await this.fail(`no good answer within ${limit}${last}`);
      return false;
    }
    await this.record(true, answer.detail);
    if (isFailover(launch) || launch.options.keepRunning === true) {
      await this.tellPhase();
      return false;
    }
    await endVm(vm, launch);
    return true;
  }

  /** What has answered the check, for people; null: nothing yet. Throws where nothing will. */
  private async answer(): Promise<ProbeAnswer | null> {
    const { launch, vm } = this;
    const probe = probeOf(launch.options);
    const wasTalking = this.serial?.isTalking === true;
    const said = this.console.judge();
    if (said.kind === 'stuck' && !wasTalking) {
      await this.fail(`the console says: ${said.line}`);
      return null;
    }
    if (probe.kind === 'console') {
      return said.kind === 'login' ? { isGood: true, detail: said.line } : null;
    }
    if (!isVmAlive(launch)) return null;
    const { probePort: hostPort, qmp } = vm;
    if (probe.kind === 'serial') return this.askBySerial(this.serial!, wasTalking);
    const { probeKeys } = this.means;
    const signal = AbortSignal.any([launch.stop, launch.leave]);
    return tryProbe(probe, { hostPort, qmp, clock: launch.clock, probeKeys, signal });
  }

  private async askBySerial(serial: SerialProbe, wasTalking: boolean): Promise<ProbeAnswer | null> {
    const answer = await serial.answer({ tail: this.console.said, qmp: this.vm.qmp });
    // A word of the command, or of its output, is none of the boot.
    if (wasTalking && !serial.isTalking) this.console.forget();
    if (answer.isLast === true) await this.fail(answer.detail);
    return answer;
  }

  /** Of a drill: throws. */
  private async fail(detail: string): Promise<void> {
    await this.record(false, detail);
    const message = `the boot check failed: ${detail}`;
    if (!isFailover(this.launch)) throw new UnderstudyError('ERR_BOOT_CHECK', message);
    await this.tellPhase();
  }

  private async record(passed: boolean, detail: string): Promise<void> {
    const { launch, vm } = this;
    const bootMs = this.bootMs();
    this.isCheckDue = false;
    this.serial?.close();
    if (isVmAlive(launch)) {
      const name = await takeScreenshot(vm, launch).catch((error: Error) => error.message);
      launch.say(`screen: ${name}`);
    }
    const probe = String(launch.options.probe ?? 'console');
    const result: CheckResult = { passed, bootMs, detail, probe };
    await softly(launch, launch.checked(result));
    await softly(launch, launch.remember({ isChecked: true }));
    launch.say(`check ${passed ? 'passed' : 'failed'} after ${formatDuration(bootMs)}: ${detail}`);
  }
}
