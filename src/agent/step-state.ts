/**
 * Small tools to write transitions with: a step is a state with the effects gathered so far. Pure.
 */
import type { LogLevel } from '../base/log.ts';
import type { AgentState, Effect, Step, VolumeState } from './state-types.ts';
import type { VolumeStep } from './volume-state.ts';

export const stay = (state: AgentState, ...effects: Effect[]): Step => ({ state, effects });

/** Runs `next` on the state of `step` and adds its effects. */
export function andThen(step: Step, next: (state: AgentState) => Step): Step {
  const after = next(step.state);
  return { state: after.state, effects: [...step.effects, ...after.effects] };
}

export const setVolume = (state: AgentState, index: number, volume: VolumeState): AgentState => ({
  ...state,
  volumes: state.volumes.with(index, volume),
});

/** Passes every volume through `change`. */
export function eachVolume(
  state: AgentState,
  change: (volume: VolumeState, index: number) => VolumeStep,
): Step {
  const steps = state.volumes.map(change);
  return {
    state: { ...state, volumes: steps.map((step) => step.volume) },
    effects: steps.flatMap((step) => step.effects),
  };
}

/** Indexes of the volumes for which `holds`. */
export const indexesOf = (
  state: AgentState,
  holds: (volume: VolumeState, index: number) => boolean,
): number[] => state.volumes.flatMap((volume, index) => (holds(volume, index) ? [index] : []));

export const logEffect = (
  level: LogLevel,
  message: string,
  fields: Record<string, unknown> = {},
): Effect => ({ type: 'log', level, message, fields });
