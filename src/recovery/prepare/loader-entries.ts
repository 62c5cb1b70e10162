/**
 * Entries of the Boot Loader Specification (loader/entries/*.conf), as Fedora, RHEL and systemd-boot have
 * them: which kernel's initramfs lies where, and which root is meant. Paths in them begin at the file system
 * that holds loader/, or, where GRUB reads them without a /boot of its own, at the root. Pure.
 */

export interface LoaderEntry {
  readonly version: string;
  readonly kernel: string;
  /** The last of them is the kernel's own; microcode comes first. */
  readonly initramfs: readonly string[];
  readonly options: string;
}

const MAX_LINES = 200;

export function parseEntry(text: string): LoaderEntry {
  const values = (key: string) =>
    text
      .split('\n')
      .slice(0, MAX_LINES)
      .filter((line) => new RegExp(`^\\s*${key}\\s`).test(line))
      .map((line) => line.trim().slice(key.length).trim());
  return {
    version: values('version')[0] ?? '',
    kernel: values('linux')[0] ?? '',
    initramfs: values('initrd').flatMap((line) => line.split(/\s+/)),
    options: values('options').join(' '),
  };
}

const isPath = (path: string): boolean =>
  /^\/[\w.+~/-]{1,300}$/.test(path) && !path.split('/').includes('..');

/** `folder`: where the entry lies, "/boot/loader/entries". Where its initramfs of `release` may be. */
export function initramfsOf(entry: LoaderEntry, folder: string, release: string): string[] {
  const isOfIt = entry.version === release || entry.kernel.includes(release);
  const path = entry.initramfs.findLast(
    (each) => isPath(each) && !/(?:ucode|microcode)/.test(each),
  );
  if (!isOfIt || path === undefined) return [];
  return [folder.replace(/\/loader\/entries$/, '') + path, path];
}

/** Whatever `kernel-install` is told: a folder of the machine's id, or of a word, with one for each kernel. */
export const isEntryToken = (name: string): boolean =>
  /^[\w.-]{1,64}$/.test(name) && !/^(?:efi|loader|grub2?|lost\+found|EFI)$/i.test(name);
