/** put-between.ts FILE NAME TEXT: replaces what stands between `<!-- NAME -->` and `<!-- NAME end -->`. */
import { readFileSync, writeFileSync } from 'node:fs';

const [path, name, text] = process.argv.slice(2);
if (path === undefined || name === undefined || text === undefined) process.exit(2);
const begin = `<!-- ${name} -->`;
const end = `<!-- ${name} end -->`;
const old = readFileSync(path, 'utf8');
const from = old.indexOf(begin) + begin.length;
writeFileSync(path, `${old.slice(0, from)}\n${text}\n${old.slice(old.indexOf(end))}`);
