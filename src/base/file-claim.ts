/**
 * A regular file for one process alone, as O_EXCL gives a block device: Node has no flock, so the kernel is
 * asked for a socket of the file's own name. Such a name is no file: it goes with the process, however that
 * ends, and leaves nothing to be cleaned up. What it does not hold off: programs that do not ask (QEMU), and
 * processes in another network namespace or on another machine.
 */
import { statSync } from 'node:fs';
import { createServer } from 'node:net';

/** Calling it gives the file free. */
export type Release = () => Promise<void>;

/** By device and inode: another name of the file is the same file. EBUSY, as a system call's error. */
export function claimFile(path: string): Promise<Release> {
  const { dev, ino } = statSync(path, { bigint: true });
  const server = createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const isTaken = cause.code === 'EADDRINUSE';
      reject(Object.assign(cause, { syscall: 'claim', ...(isTaken && { code: 'EBUSY' }) }));
    });
    server.listen({ path: `\0understudy-file-${dev}-${ino}` }, () => {
      server.unref();
      resolve(() => new Promise((done) => server.close(() => done())));
    });
  });
}
