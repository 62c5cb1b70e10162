/**
 * Places of a recovery point that cannot be given back: their stored bytes fail their digest, or are held nowhere
 * any more. Unlike an outage it does not pass by waiting: whoever reads gets an error at once, and the job
 * tells which point, where, and what can be done. Pure.
 */
import { UnderstudyError } from '../base/errors.ts';

export interface DamagedPlace {
  readonly volume: string;
  /** Bytes [offset, offset + length) of the volume. */
  readonly offset: number;
  readonly length: number;
}

const lostCodes: readonly string[] = [
  ...['ERR_PIECE_DAMAGED', 'ERR_PIECE_MISSING', 'ERR_OBJECT_DAMAGED', 'ERR_OBJECT_MISSING'],
];

/** Of an error's code: what was to be read is damaged or gone, and was not merely out of reach. */
export const isLossCode = (code: string): boolean => lostCodes.includes(code);

export const isLoss = (error: unknown): error is UnderstudyError =>
  error instanceof UnderstudyError && isLossCode(error.code);

/** So many are told apart; a point with more of them is of no use anyway. */
const MAX_PLACES = 100;

/** The same list where it says so already. What touches in a volume is one place. */
export function withPlace(
  places: readonly DamagedPlace[],
  { volume, offset, length }: DamagedPlace,
): readonly DamagedPlace[] {
  const end = offset + length;
  const isPart = (place: DamagedPlace) =>
    place.volume === volume && place.offset <= offset && endOf(place) >= end;
  if (places.some(isPart)) return places;
  const touches = (place: DamagedPlace) =>
    place.volume === volume && place.offset <= end && endOf(place) >= offset;
  const joined = places.filter(touches);
  if (joined.length === 0 && places.length >= MAX_PLACES) return places;
  const start = Math.min(offset, ...joined.map((place) => place.offset));
  const until = Math.max(end, ...joined.map(endOf));
  const others = places.filter((place) => !joined.includes(place));
  return [...others, { volume, offset: start, length: until - start }];
}

const endOf = ({ offset, length }: DamagedPlace): number => offset + length;

const MAX_SHOWN = 5;

const placesText = (places: readonly DamagedPlace[]): string => {
  const shown = places
    .slice(0, MAX_SHOWN)
    .map(({ volume, offset, length }) => `bytes ${offset}-${offset + length - 1} of ${volume}`);
  const more = places.length - shown.length;
  return `${shown.join(', ')}${more > 0 ? ` and ${more} places more` : ''}`;
};

/** For people: which point, where, and the way on. */
export const damageText = (point: string, places: readonly DamagedPlace[]): string =>
  `point ${point} is damaged at ${placesText(places)}: whoever reads there gets an error; ` +
  'take another point, or mend it: repo repair';
