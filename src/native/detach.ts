/** The end of tracking: all programs and marks of an agent are taken out of the kernel. */
import { readdirSync, statSync } from 'node:fs';
import { UnderstudyError } from '../base/errors.ts';
import { addon, guarded } from './addon.ts';
import { type Loader, programLoader } from './loader.ts';
import { pinDirectoryOf } from './tracker.ts';

/** False where nothing is tracked under that name. Throws ERR_TRACKER_*. */
export function detachTracker(instance?: string, loader: Loader = programLoader()): boolean {
  const directory = pinDirectoryOf(instance);
  if (!isPinned(directory)) return false;
  const lock = guarded(() => addon().lockFolder(directory));
  try {
    for (const name of readdirSync(directory)) {
      if (name !== 'control') loader.detach(directory, name);
    }
    loader.remove(directory);
    return true;
  } finally {
    addon().unlockFolder(lock);
  }
}

/** What one may not see is not gone. ERR_TRACKER_PERMISSION. */
export function isPinned(directory: string, look: (path: string) => unknown = statSync): boolean {
  try {
    look(directory);
    return true;
  } catch (cause) {
    const { code = '' } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return false;
    const refused = code === 'EACCES' || code === 'EPERM';
    const message = `cannot look at ${directory}: ${code}`;
    const context = { path: directory, syscall: 'stat', errno: code };
    const name = refused ? 'ERR_TRACKER_PERMISSION' : 'ERR_TRACKER_PIN';
    throw new UnderstudyError(name, message, context, cause);
  }
}
