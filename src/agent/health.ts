/**
 * Reads what the device and the engine's counters say of a volume. A device that does not answer is a
 * fact about the volume, not an error of the agent.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { Device, Engine } from '../native/types.ts';
import type { AgentVolume } from './ports.ts';
import type { VolumeHealth } from './state-types.ts';

export function readHealth(
  engine: Engine,
  index: number,
  { device, tracked, isScanned }: AgentVolume,
  before: VolumeHealth,
): VolumeHealth {
  let sizeBytes: number;
  let named: ReturnType<Device['named']>;
  try {
    sizeBytes = device.currentSizeBytes();
    named = device.named();
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    return { ...before, sizeBytes: -1, fault: error.message };
  }
  // A device that is open tells by itself when it goes, whatever becomes of its name; a file does not.
  if (named === 'nothing' && device.geometry.kind === 'file') {
    return { ...before, sizeBytes: -1, fault: `nothing has the path ${device.path}` };
  }
  const taint = named === 'other' ? 'the path is that of something else by now' : '';
  if (isScanned) return { ...before, sizeBytes, fault: '', taint };
  const counters = engine.counters(index);
  const unit = tracked.granularityBytes;
  const written = counters.writtenBytesSinceFlip;
  return {
    sizeBytes,
    fault: '',
    taint: counters.taint || taint,
    pendingBytes: counters.pendingBlocks * unit + written,
    dirtyBytes: counters.outstandingBlocks * unit + written,
    missedCompletions: counters.missedCompletions + counters.recursionMisses,
    suspectBlocks: counters.suspectBlocks,
  };
}
