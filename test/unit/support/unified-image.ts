/** A unified kernel image for tests of its reader: the headers of a PE program, and sections. */

const HEADER_AT = 64;
const SECTIONS_AT = HEADER_AT + 24;

export function unifiedImage(sections: Readonly<Record<string, string | Buffer>>): Buffer {
  const parts = Object.entries(sections).map(([name, content]) => ({
    name,
    content: Buffer.from(content as Buffer),
  }));
  const head = Buffer.alloc(SECTIONS_AT + 40 * parts.length);
  head.write('MZ');
  head.writeUInt32LE(HEADER_AT, 60);
  head.write('PE\0\0', HEADER_AT, 'latin1');
  head.writeUInt16LE(parts.length, HEADER_AT + 6);
  let end = head.length;
  const bodies: Buffer[] = [];
  for (const [index, { name, content }] of parts.entries()) {
    // As linkers do, with zeros up to a boundary.
    const room = Math.ceil(content.length / 512) * 512;
    const at = SECTIONS_AT + 40 * index;
    head.write(name, at, 'latin1');
    head.writeUInt32LE(content.length, at + 8);
    head.writeUInt32LE(room, at + 16);
    head.writeUInt32LE(end, at + 20);
    bodies.push(Buffer.concat([content, Buffer.alloc(room - content.length)]));
    end += room;
  }
  return Buffer.concat([head, ...bodies]);
}
