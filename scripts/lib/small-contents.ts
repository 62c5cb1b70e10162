/** Chunks that differ and are small when packed: repositories of many of them take little room. */
import { createHash } from 'node:crypto';
import { compressSync } from 'lz4-napi';
import { wholeEntry } from '../../src/model/entry.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { CutInfo } from '../../src/model/replication.ts';
import type { Ingest, VerifiedPiece, VolumeDescription } from '../../src/store/types.ts';

const CHUNKS_PER_CALL = 512;
const cut: CutInfo = { method: 'validated', passes: 1, durationMs: 1 };

/** The content that is `number`; every number has another one. */
function pieceOf(number: number): VerifiedPiece {
  const content = Buffer.alloc(CHUNK_BYTES);
  content.writeDoubleLE(number + 1);
  const digest = new Uint8Array(createHash('sha256').update(content).digest());
  return { digest, codec: 1, rawLength: CHUNK_BYTES, stored: compressSync(content) };
}

/** A volume whose chunk i has, from the first write on, the content `contents[i]`. */
export class ManyChunks {
  readonly description: VolumeDescription;
  readonly chunks: number;
  epoch = 0;
  private next = 0;

  constructor(chunks: number) {
    this.chunks = chunks;
    this.description = {
      ...{ volume: '/dev/many', sectorBytes: 512, generation: 'e'.repeat(32) },
      sizeBytes: chunks * CHUNK_BYTES,
    };
  }

  /** Another process has written so many contents, and committed so many epochs. */
  goOn(written: number, epoch: number): void {
    this.next = written;
    this.epoch = epoch;
  }

  /** Writes new contents into chunks [from, from + count). */
  async write(ingest: Ingest, from: number, count: number): Promise<void> {
    for (let at = from; at < from + count; at += CHUNKS_PER_CALL) {
      const end = Math.min(at + CHUNKS_PER_CALL, from + count);
      const pieces = Array.from({ length: end - at }, () => {
        this.next += 1;
        return pieceOf(this.next);
      });
      const entries = pieces.map(({ digest }, i) => ({
        ...{ index: at + i, count: 1, entry: wholeEntry(digest) },
      }));
      await ingest.patch(0, entries, pieces);
    }
  }

  /** The id of the point. */
  async commit(ingest: Ingest, timeMs: number): Promise<string> {
    const { generation } = this.description;
    this.epoch += 1;
    const contentDigest = String(this.epoch).padStart(64, '0');
    const outcome = await ingest.commit({
      ...{ timeMs, cut, requestId: '', missingVolumes: [] },
      volumes: [{ volume: 0, generation, epoch: this.epoch, contentDigest }],
    });
    if (outcome.kind !== 'committed') throw new Error('a chunk is missing');
    return outcome.point.id;
  }
}
