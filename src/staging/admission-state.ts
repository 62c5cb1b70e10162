/**
 * Who may be a server: one machine at a time (a drill's clone has the server's name and disks, and must
 * not write over its history). Pure.
 */
import type { Holder } from './register.ts';

export type Admission =
  /** The name is free, or this machine holds it. `holder` is set where that is news. */
  | { readonly kind: 'admitted'; readonly holder: Holder | null }
  /** Another machine holds it; an operator may let this one take it over. */
  | { readonly kind: 'refused'; readonly holder: Holder };

export function admit(known: Holder | undefined, server: string, hardwareId: string): Admission {
  if (known === undefined) {
    return { kind: 'admitted', holder: { server, hardwareId, pendingHardwareId: null } };
  }
  if (known.hardwareId === hardwareId) return { kind: 'admitted', holder: null };
  return { kind: 'refused', holder: { ...known, pendingHardwareId: hardwareId } };
}

/** The machine that waits takes the name over; null where it is not the one that waits. */
export const admitPending = (known: Holder, hardwareId: string): Holder | null =>
  known.pendingHardwareId === hardwareId && hardwareId !== ''
    ? { server: known.server, hardwareId, pendingHardwareId: null }
    : null;
