/**
 * bench-data.ts FILE MIB: writes a third random bytes, a third text (words of a vocabulary, few of them often),
 * and leaves a third zero: what the results in the README are measured over.
 */
import { randomFillSync, randomInt } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const MIB = 1 << 20;
const [path, sizeMib] = process.argv.slice(2);
if (path === undefined || sizeMib === undefined) process.exit(2);
const third = Math.floor(Number(sizeMib) / 3);

const letters = 'etaoinshrdlucmfwygpbvk';
const words = Array.from({ length: 4000 }, () =>
  Array.from({ length: 2 + randomInt(8) }, () => letters[randomInt(letters.length)]).join(''),
);

function text(lengthBytes: number): Buffer {
  const parts: string[] = [];
  for (let length = 0; length < lengthBytes; ) {
    const word = words[Math.floor(Math.random() ** 4 * words.length)]!;
    parts.push(word);
    length += word.length + 1;
  }
  return Buffer.from(parts.join(' ')).subarray(0, lengthBytes);
}

const fd = openSync(path, 'w');
ftruncateSync(fd, Number(sizeMib) * MIB);
const random = Buffer.alloc(MIB);
for (let at = 0; at < third; at += 1) {
  writeSync(fd, randomFillSync(random), 0, MIB, at * MIB);
  writeSync(fd, text(MIB), 0, undefined, (third + at) * MIB);
}
closeSync(fd);
