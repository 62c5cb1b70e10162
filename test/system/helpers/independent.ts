/** Runs the reader that was written from the documents of the format alone, and damages what it reads. */
import { execFile } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { GetObjectCommand, paginateListObjectsV2, type S3Client } from '@aws-sdk/client-s3';
import type { Ran } from './understudy.ts';

export const readerFolder = resolve(import.meta.dirname, '../../independent');
const reader = join(readerFolder, 'reader.py');

/** Runs the independent reader to its end. */
export const independently = (...words: readonly string[]): Promise<Ran> =>
  new Promise((done) => {
    execFile('python3', ['-B', reader, ...words], { timeout: 120_000 }, (error, out, err) => {
      const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      done({ exitCode, out, err });
    });
  });

export const filesUnder = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());

/** Deltas of several epochs: points between them were dropped. */
export const foldsIn = (data: string): string[] =>
  filesUnder(join(data, 'repo/deltas')).filter((path) => {
    const [, from, to] = /(\d+)-(\d+)\.delta$/.exec(path) ?? [];
    return Number(to) - Number(from) > 1;
  });

/** Staging looks for points to drop once a minute; here every second and a half. */
export const hurried = {
  NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(
    'const wait = setTimeout;' +
      'globalThis.setTimeout = (f, ms, ...rest) => wait(f, ms === 60000 ? 1500 : ms, ...rest);',
  )}`,
};

/** Turns one bit of a byte; a second time turns it back. A negative place counts from the end. */
export function flip(path: string, place: number): void {
  const at = place < 0 ? statSync(path).size + place : place;
  const file = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  writeSync(file, Buffer.of(byte[0]! ^ 0x10), 0, 1, at);
  closeSync(file);
}

/** Runs `body` while a byte of each file is another one. */
export async function flipped<Found>(
  paths: readonly string[],
  place: (size: number) => number,
  body: () => Promise<Found>,
): Promise<Found> {
  const places = paths.map((path) => [path, place(statSync(path).size)] as const);
  for (const [path, at] of places) flip(path, at);
  try {
    return await body();
  } finally {
    for (const [path, at] of places) flip(path, at);
  }
}

/** Brings all objects below a prefix down into a folder, each under its key without the prefix. */
export async function download(
  client: S3Client,
  Bucket: string,
  prefix: string,
  folder: string,
): Promise<void> {
  for await (const page of paginateListObjectsV2({ client }, { Bucket, Prefix: `${prefix}/` })) {
    for (const { Key } of page.Contents ?? []) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }));
      const path = join(folder, Key!.slice(prefix.length + 1));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, await Body!.transformToByteArray());
    }
  }
}
