/**
 * Serves the image of a volume at a recovery point over HTTP with ranges, as curl, QEMU and nbdkit read
 * it. What leaves here was checked against its digests by the store's reader (P3): damage is an error, or
 * ends the response early where its head was sent, and never sends a wrong byte; the jobs that read the point
 * are told where it lies. The reader holds the point while a response runs.
 */
import type { ServerResponse } from 'node:http';
import { UnderstudyError } from '../../base/errors.ts';
import { noteGarbage } from '../../base/memory.ts';
import { MIB } from '../../base/units.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import { isLoss } from '../../recovery/damage.ts';
import { digestPieces } from '../../store/images/image-digests.ts';
import type { ImageReader } from '../../store/types.ts';
import { parseRange } from './range.ts';
import { type Call, integerOf, type Route } from './route.ts';

const STEP_BYTES = MIB;

async function withImage<T>(call: Call, use: (image: ImageReader) => Promise<T>): Promise<T> {
  const image = await call.backend.store.openImage(call.path.point!, call.path.volume!);
  try {
    return await use(image);
  } finally {
    image.close();
  }
}

const namesEtag = (header: string | undefined, etag: string): boolean =>
  header !== undefined &&
  (header.trim() === '*' || header.split(',').some((name) => name.trim() === etag));

interface Span {
  readonly start: number;
  readonly length: number;
}

/** Of what could not be read, the chunks that are damaged, to the jobs that read this point. */
async function tellDamage({ backend, path }: Call, image: ImageReader, span: Span): Promise<void> {
  const end = span.start + span.length;
  for (let at = span.start - (span.start % CHUNK_BYTES); at < end; at += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, image.sizeBytes - at);
    const failure = await image.read(at, length).then(
      () => null,
      (error: unknown) => error,
    );
    if (!isLoss(failure)) continue;
    await backend.jobs.damaged(path.point!, { volume: path.volume!, offset: at, length });
  }
}

/** At most a step of [start, start + length). */
async function readStep(call: Call, image: ImageReader, span: Span): Promise<Uint8Array> {
  const length = Math.min(STEP_BYTES, span.length);
  try {
    return await image.read(span.start, length);
  } catch (error) {
    if (isLoss(error)) await tellDamage(call, image, { start: span.start, length });
    throw error;
  }
}

/** Sends `first` and what follows it up to `end`, a step at a time, as fast as the client takes it. */
async function stream(
  call: Call,
  image: ImageReader,
  span: Span,
  first: Uint8Array,
): Promise<void> {
  const { response } = call;
  let at = span.start;
  const end = span.start + span.length;
  const gone = closed(response);
  while (at < end && !response.destroyed) {
    const isFirst = at === span.start;
    const bytes = isFirst ? first : await readStep(call, image, { start: at, length: end - at });
    at += bytes.length;
    noteGarbage(bytes.length);
    if (!response.write(bytes)) await Promise.race([drained(response), gone]);
  }
  if (!response.destroyed) response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    response.once('drain', resolve);
  });
}

function closed(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) resolve();
    else response.once('close', () => resolve());
  });
}

async function serveImage(call: Call): Promise<undefined> {
  const { request, response } = call;
  const { headers } = request;
  await withImage(call, async (image) => {
    const etag = `"${image.etag.replaceAll('"', '')}"`;
    if (headers['if-match'] !== undefined && !namesEtag(headers['if-match'], etag)) {
      throw new UnderstudyError('ERR_IMAGE_CHANGED', `the image's ETag is ${etag}`);
    }
    response.setHeader('accept-ranges', 'bytes');
    response.setHeader('etag', etag);
    response.setHeader('content-type', 'application/octet-stream');
    response.setHeader('cache-control', 'private, immutable');
    if (namesEtag(headers['if-none-match'], etag)) {
      response.writeHead(304).end();
      return;
    }
    const ifRange = headers['if-range'];
    const isRangeWanted = ifRange === undefined || ifRange === etag;
    const range = parseRange(isRangeWanted ? headers.range : undefined, image.sizeBytes);
    if (range.kind === 'unsatisfiable') {
      response.writeHead(416, { 'content-range': `bytes */${image.sizeBytes}` }).end();
      return;
    }
    const start = range.kind === 'part' ? range.start : 0;
    const length = range.kind === 'part' ? range.length : image.sizeBytes;
    const isHead = request.method === 'HEAD';
    const nothing = new Uint8Array(0);
    // Before the head of the answer: what cannot be read is an error then, and no answer cut short.
    const first = isHead ? nothing : await readStep(call, image, { start, length });
    if (range.kind === 'part') {
      const last = start + length - 1;
      response.setHeader('content-range', `bytes ${start}-${last}/${image.sizeBytes}`);
    }
    response.writeHead(range.kind === 'part' ? 206 : 200, { 'content-length': length });
    if (isHead) response.end();
    else await stream(call, image, { start, length }, first);
  });
  return undefined;
}

async function serveDigests(call: Call): Promise<unknown> {
  const maximum = Number.MAX_SAFE_INTEGER;
  const offset = integerOf(call.query.get('offset'), 'offset', 0, maximum);
  return withImage(call, async (image) => ({
    ...(await digestPieces(image, offset)),
    sizeBytes: image.sizeBytes,
  }));
}

export const imageRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/points/{point}/volumes/{volume}/image',
    summary:
      'The bytes of a volume at a point (GET and HEAD). Takes one range; {volume} is the path as it ' +
      'was given to the agent, percent-encoded.',
    responseSchema: null,
    status: 200,
    handle: serveImage,
  },
  {
    method: 'GET',
    path: '/v1/points/{point}/volumes/{volume}/digests',
    summary: 'SHA-256 of every MiB of an image that is not zero, a page at a time.',
    query: [
      {
        name: 'offset',
        description: 'Where the page begins: `next` of the page before',
        schema: { type: 'integer', minimum: 0, default: 0 },
      },
    ],
    responseSchema: 'Digests',
    status: 200,
    handle: serveDigests,
  },
];
