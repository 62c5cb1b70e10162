/**
 * Reads what the device and the engine's counters say of a volume. A device that does not answer is a
 * fact about the volume, not an error of the agent.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { Engine } from '../native/types.ts';
import type { AgentVolume } from './ports.ts';
import type { VolumeHealth } from './state-types.ts';

export function readHealth(
  engine: Engine,
  index: number,
  { device, tracked, isScanned }: AgentVolume,
  before: VolumeHealth,
): VolumeHealth {
  let sizeBytes: number;
  try {
    sizeBytes = device.currentSizeBytes();
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    return { ...before, sizeBytes: -1, fault: error.message };
  }
  if (isScanned) return { ...before, sizeBytes, fault: '' };
  const counters = engine.counters(index);
  const unit = tracked.granularityBytes;
  const written = counters.writtenBytesSinceFlip;
  return {
    sizeBytes,
    fault: '',
    taint: counters.taint,
    pendingBytes: counters.pendingBlocks * unit + written,
    dirtyBytes: counters.outstandingBlocks * unit + written,
    missedCompletions: counters.missedCompletions + counters.recursionMisses,
    suspectBlocks: counters.suspectBlocks,
  };
}
