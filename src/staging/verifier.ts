/** Checking of frames with contents as the sessions use it: in place or in threads. */
import { verifyFrame } from './verify.ts';

export interface Verifier {
  /**
   * Resolves with the frame, whose contents are what their names say; rejects with ERR_PROTOCOL_*. The
   * frame given belongs to the verifier: it may come back in other memory.
   */
  verify(frame: Uint8Array): Promise<Uint8Array>;
  /** The frame that `verify` gave back, and every view of it, is not looked at any more. */
  release(frame: Uint8Array): void;
  close(): Promise<void>;
}

/** For the simulator and for tests. */
export const inlineVerifier: Verifier = {
  async verify(frame) {
    verifyFrame(frame);
    return frame;
  },
  release: () => undefined,
  close: async () => undefined,
};
