/** The region of AWS, where a plan names none. Without the SDK, so that staging may ask at its start. */

/** Null: as the profile has it. */
export const effectiveRegion = (region: string | null): string | null =>
  region ?? process.env.AWS_REGION ?? process.env.AWS_DEFAULT_REGION ?? null;

export const isSameRegion = (a: string | null, b: string | null): boolean =>
  effectiveRegion(a) === effectiveRegion(b);
