/** UEFI firmware for QEMU (OVMF), where Debian's package ovmf and others put it. */
import { existsSync } from 'node:fs';
import { UnderstudyError } from '../../base/errors.ts';

export interface Firmware {
  readonly codePath: string;
  /** A template: each machine writes to a copy of its own. */
  readonly variablesPath: string;
}

const places: readonly Firmware[] = [
  {
    codePath: '/usr/share/OVMF/OVMF_CODE_4M.fd',
    variablesPath: '/usr/share/OVMF/OVMF_VARS_4M.fd',
  },
  { codePath: '/usr/share/OVMF/OVMF_CODE.fd', variablesPath: '/usr/share/OVMF/OVMF_VARS.fd' },
  {
    codePath: '/usr/share/edk2/ovmf/OVMF_CODE.fd',
    variablesPath: '/usr/share/edk2/ovmf/OVMF_VARS.fd',
  },
];

/** ERR_LAUNCH_FIRMWARE. */
export function findFirmware(): Firmware {
  const found = places.find(
    ({ codePath, variablesPath }) => existsSync(codePath) && existsSync(variablesPath),
  );
  if (found !== undefined) return found;
  throw new UnderstudyError('ERR_LAUNCH_FIRMWARE', 'the disk boots by UEFI, and OVMF is not here');
}
