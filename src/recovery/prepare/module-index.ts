/**
 * modules.dep.bin, the form of modules.dep that modprobe reads: a tree over the names of modules, as kmod
 * writes it (libkmod/libkmod-index.c): big-endian, children before their parents, the kind of a node in the
 * upper bits of the offset that leads to it. Pure.
 */

const MAGIC = 0xb007f457;
const VERSION = 0x00020001;
const HAS_PREFIX = 0x80000000;
const HAS_VALUES = 0x40000000;
const HAS_CHILDREN = 0x20000000;

interface Value {
  readonly key: string;
  readonly value: string;
  readonly priority: number;
}

/** `lines` of modules.dep by the name of the module. */
export function moduleIndex(lines: ReadonlyMap<string, string>): Buffer {
  const values = [...lines].map(([key, value], priority) => ({ key, value, priority }));
  const sorted = values.sort((a, b) => (a.key < b.key ? -1 : 1));
  const parts: Buffer[] = [Buffer.alloc(12)];
  const state = { parts, length: 12 };
  const root = writeNode(state, sorted, 0);
  const head = parts[0]!;
  head.writeUInt32BE(MAGIC, 0);
  head.writeUInt32BE(VERSION, 4);
  head.writeUInt32BE(root, 8);
  return Buffer.concat(parts);
}

interface Output {
  readonly parts: Buffer[];
  length: number;
}

/** The node of all that agree in their first `depth` characters; where it lies, and its kind. */
function writeNode(output: Output, values: readonly Value[], depth: number): number {
  const prefix = commonPrefix(values, depth);
  const at = depth + prefix.length;
  const own = values.filter(({ key }) => key.length === at);
  const children = new Map<number, number>();
  for (let from = 0; from < values.length; ) {
    const code = values[from]!.key.charCodeAt(at);
    let to = from;
    while (to < values.length && sameCode(values[to]!.key.charCodeAt(at), code)) to += 1;
    if (!Number.isNaN(code)) children.set(code, writeNode(output, values.slice(from, to), at + 1));
    from = to;
  }
  const parts: Buffer[] = [];
  let kind = 0;
  if (prefix !== '') {
    kind |= HAS_PREFIX;
    parts.push(Buffer.from(`${prefix}\0`, 'latin1'));
  }
  if (children.size > 0) {
    kind |= HAS_CHILDREN;
    parts.push(childTable(children));
  }
  if (own.length > 0) {
    kind |= HAS_VALUES;
    parts.push(number(own.length));
    for (const { priority, value } of own) {
      parts.push(number(priority), Buffer.from(`${value}\0`, 'latin1'));
    }
  }
  const offset = output.length;
  for (const part of parts) {
    output.parts.push(part);
    output.length += part.length;
  }
  return ((offset | kind) >>> 0) as number;
}

const sameCode = (a: number, b: number): boolean => a === b || (Number.isNaN(a) && Number.isNaN(b));

/** First and last character, and an offset for each between them. */
function childTable(children: ReadonlyMap<number, number>): Buffer {
  const codes = [...children.keys()];
  const first = Math.min(...codes);
  const last = Math.max(...codes);
  const table = Buffer.alloc(2 + 4 * (last - first + 1));
  table[0] = first;
  table[1] = last;
  for (const [code, offset] of children) table.writeUInt32BE(offset, 2 + 4 * (code - first));
  return table;
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function commonPrefix(values: readonly Value[], depth: number): string {
  const first = values[0]?.key ?? '';
  let end = first.length;
  for (const { key } of values) {
    let at = depth;
    while (at < end && key[at] === first[at]) at += 1;
    end = Math.min(end, at);
  }
  return first.slice(depth, end);
}
