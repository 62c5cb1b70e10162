/** What the addon does for us; the rest of the project imports this file and `types.ts` only. */
export { refusalReason } from './admission.ts';
export { compressInto } from './compress.ts';
export { detachTracker } from './detach.ts';
export { alignedBuffer, openDevice } from './device.ts';
export { createEngine, type EngineOptions } from './engine.ts';
export { machineSysfs } from './loader.ts';
export {
  openTracker,
  type Tracker,
  type TrackerOptions,
} from './tracker.ts';
