/**
 * A unified kernel image: kernel, initramfs and command line as sections of one program that firmware starts
 * (PE/COFF; UAPI group, "Unified Kernel Image"). Its parts cannot be changed in place, but they can be told,
 * and taken out. It comes from a source's disk: every number is checked before it is used. Pure.
 */

export interface UnifiedImage {
  /** '' where it does not say. */
  readonly release: string;
  readonly options: string;
  readonly kernel: Buffer;
  readonly initramfs: Buffer;
}

const MAX_SECTIONS = 96;
const MAX_TEXT_BYTES = 65_536;
const COFF_BYTES = 24;
const SECTION_BYTES = 40;

/** Null where it is none. */
export function readUnifiedImage(bytes: Buffer): UnifiedImage | null {
  const sections = sectionsOf(bytes);
  const [kernel, initramfs] = [sections?.get('.linux'), sections?.get('.initrd')];
  if (sections === null || kernel === undefined || initramfs === undefined) return null;
  const text = (name: string) =>
    (sections.get(name) ?? Buffer.alloc(0))
      .toString('latin1', 0, MAX_TEXT_BYTES)
      .replace(/\0.*$/s, '')
      .replace(/\s+/g, ' ')
      .trim();
  return { release: text('.uname'), options: text('.cmdline'), kernel, initramfs };
}

function sectionsOf(bytes: Buffer): Map<string, Buffer> | null {
  if (bytes.length < 64 || bytes.toString('latin1', 0, 2) !== 'MZ') return null;
  const header = bytes.readUInt32LE(60);
  if (header + COFF_BYTES > bytes.length) return null;
  if (bytes.toString('latin1', header, header + 4) !== 'PE\0\0') return null;
  const count = Math.min(bytes.readUInt16LE(header + 6), MAX_SECTIONS);
  const start = header + COFF_BYTES + bytes.readUInt16LE(header + 20);
  const sections = new Map<string, Buffer>();
  for (let index = 0; index < count; index += 1) {
    const at = start + index * SECTION_BYTES;
    if (at + SECTION_BYTES > bytes.length) break;
    const name = bytes.toString('latin1', at, at + 8).replace(/\0+$/, '');
    const [size, room, from] = [8, 16, 20].map((field) => bytes.readUInt32LE(at + field));
    // What lies in the file may be padded, and shorter than what is in memory.
    const length = Math.min(size!, room!);
    if (from! + length <= bytes.length) sections.set(name, bytes.subarray(from!, from! + length));
  }
  return sections;
}
