/**
 * The rolling chain of a server in the hands of a launch: while it has it, nobody moves it on or deletes of
 * it. Staging keeps chains and lends them.
 */
import type { Extent } from '../../model/geometry.ts';
import type { ChainHead } from './chain.ts';

export interface BorrowedChain {
  headOf(volume: string): ChainHead | null;
  /** What differs between the head's point and this one; null where that cannot be told any more. */
  changed(volume: string, point: string): Promise<(() => AsyncIterable<Extent>) | null>;
  release(): void;
}

export interface ChainLender {
  /** Null where the server has none in that region. */
  borrow(server: string, region: string | null): Promise<BorrowedChain | null>;
}
