/** A thread of the verifier (worker-verifier.ts): frames in, the same memory back with a verdict. */
import { parentPort } from 'node:worker_threads';
import { assert, type ErrorCode, UnderstudyError } from '../base/errors.ts';
import { takeTurns } from '../base/memory.ts';
import { tellLoaded } from '../base/worker-thread.ts';
import { verifyFrame } from './verify.ts';

/** What goes back: `error` is null where all is right. */
export interface Verdict {
  readonly frame: Uint8Array<ArrayBuffer>;
  readonly error: { readonly code: ErrorCode; readonly message: string } | null;
}

function judge(frame: Uint8Array): Verdict['error'] {
  try {
    verifyFrame(frame);
    return null;
  } catch (error) {
    if (error instanceof UnderstudyError) return { code: error.code, message: error.message };
    return { code: 'ERR_BUG', message: String(error) };
  }
}

const port = parentPort;
assert(port !== null, 'verify-worker runs in a thread');
takeTurns(port, (frame: Uint8Array<ArrayBuffer>) => {
  const verdict: Verdict = { frame, error: judge(frame) };
  port.postMessage(verdict, [frame.buffer]);
});
tellLoaded();
