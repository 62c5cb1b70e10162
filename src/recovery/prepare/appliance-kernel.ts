/**
 * The kernel of the preparation's virtual machine: one of this machine's own (/boot, /lib/modules), or what
 * the operator names: a Debian package of a kernel, or a folder with boot/ and lib/modules/ in it.
 */
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UnderstudyError } from '../../base/errors.ts';
import { runProgram } from '../qemu/programs.ts';

export interface ApplianceKernel {
  readonly release: string;
  readonly imagePath: string;
  /** ".../lib/modules/RELEASE". */
  readonly modulesFolder: string;
}

const lacking = (message: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError('ERR_APPLIANCE_KERNEL', message, {}, cause);

/**
 * `place`: a folder or a .deb; undefined: this machine. A package is unpacked into `workFolder`, which must
 * exist. ERR_APPLIANCE_KERNEL where there is none that can be read.
 */
export async function findKernel(
  place: string | undefined,
  workFolder: string,
): Promise<ApplianceKernel> {
  const root = place?.endsWith('.deb') ? await unpacked(place, workFolder) : (place ?? '/');
  if (!existsSync(root)) throw lacking(`there is no ${root}`);
  const found = kernelsIn(root);
  const [newest] = found.filter(({ imagePath }) => isReadable(imagePath));
  if (newest !== undefined) return newest;
  if (found[0] !== undefined) throw lacking(`${found[0].imagePath} cannot be read`);
  const where = place === undefined ? 'under /boot of this machine' : `in ${place}`;
  throw lacking(`boot preparation needs a kernel with its modules, and there is none ${where}`);
}

async function unpacked(place: string, workFolder: string): Promise<string> {
  if (!existsSync(place)) throw lacking(`there is no ${place}`);
  const folder = join(workFolder, 'kernel');
  try {
    await runProgram('dpkg-deb', ['-x', place, folder]);
  } catch (cause) {
    throw lacking(`${place} cannot be unpacked`, cause);
  }
  return folder;
}

/** The newest first. */
function kernelsIn(root: string): ApplianceKernel[] {
  const found: ApplianceKernel[] = [];
  for (const folder of ['lib/modules', 'usr/lib/modules']) {
    for (const release of namesIn(join(root, folder))) {
      const modulesFolder = join(root, folder, release);
      const images = [join(root, 'boot', `vmlinuz-${release}`), join(modulesFolder, 'vmlinuz')];
      const imagePath = images.find((path) => existsSync(path));
      if (imagePath !== undefined && existsSync(join(modulesFolder, 'kernel'))) {
        found.push({ release, imagePath, modulesFolder });
      }
    }
  }
  const compare = new Intl.Collator('en', { numeric: true }).compare;
  return found.sort((a, b) => compare(b.release, a.release));
}

const namesIn = (folder: string): string[] =>
  existsSync(folder) && statSync(folder).isDirectory() ? readdirSync(folder) : [];

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}
