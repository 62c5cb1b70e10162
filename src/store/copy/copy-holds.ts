/**
 * Legal holds of a copy: a point that is held at the source is held at the destination too, so that no
 * rules drop it there, until it is released at the source. Of a point that the source has no more the
 * destination's own hold stays.
 */
import type { Core } from '../core.ts';
import { temporaryPath } from '../core.ts';
import { encodeJsonObject } from '../format/json-object.ts';
import { writeObject } from '../format/object-file.ts';
import { HOLD_MAGIC } from '../retention/holds.ts';

/** Durable once it resolves. */
export async function copyHolds(source: Core, target: Core): Promise<void> {
  for (const { id, server } of await target.catalog.pointNames()) {
    const hold = source.legalHolds.get(id);
    const isHeld = target.legalHolds.has(id);
    if (hold !== undefined && !isHeld) {
      const { reason, time } = hold; // both empty where the source's object is damaged: it holds still
      const object = encodeJsonObject(HOLD_MAGIC, { point: id, server, reason, time });
      await writeObject(target.disk, temporaryPath(target), target.paths.hold(id), [object]);
      target.legalHolds.set(id, hold);
    } else if (hold === undefined && isHeld && (await source.catalog.point(id)) !== null) {
      await target.disk.remove(target.paths.hold(id));
      await target.disk.syncDirectory(target.paths.holds);
      target.legalHolds.delete(id);
    }
  }
}
