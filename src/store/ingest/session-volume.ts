/** One volume of a session: as its agent describes it, and the epoch that is open for it. */
import { assert } from '../../base/errors.ts';
import type { VolumeState } from '../core.ts';
import { OpenEpoch } from '../journal/open-epoch.ts';
import type { OpenEpochName } from '../packs/segment.ts';
import type { VolumeDescription } from '../types.ts';
import type { VolumeView } from './volume-view.ts';

export interface SessionVolume {
  readonly description: VolumeDescription;
  readonly state: VolumeState;
  readonly view: VolumeView;
  /**
   * Its generation was left for another one (another machine had the name meanwhile): the agent is told what
   * is held instead, and begins a new one. Nothing is taken.
   */
  readonly isOver: boolean;
}

/** The name of the epoch that is open for a volume as its agent describes it. */
export function openName(
  server: string,
  { volume, generation, sizeBytes, sectorBytes }: VolumeDescription,
  head: VolumeState['head'],
): OpenEpochName {
  const epoch = head?.generation === generation ? head.epoch + 1 : 1;
  return { server, volume, generation, sizeBytes, sectorBytes, epoch };
}

/** The open epoch that these descriptions and the head call for; one is begun where none is open. */
export function openEpoch(
  server: string,
  state: VolumeState,
  description: VolumeDescription,
): OpenEpoch {
  const name = openName(server, description, state.head);
  state.open ??= new OpenEpoch(name);
  assert(isSameEpoch(state.open.name, name), 'a session begins by dropping what is open otherwise');
  return state.open;
}

export const isSameEpoch = (open: OpenEpochName, name: OpenEpochName): boolean =>
  open.generation === name.generation &&
  open.epoch === name.epoch &&
  open.sizeBytes === name.sizeBytes &&
  open.sectorBytes === name.sectorBytes;
