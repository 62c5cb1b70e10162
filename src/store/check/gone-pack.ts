/** Which pack a content that is not held was in, as the index remembers it: one pack that is gone explains many. */
import { isDamage, isNotFound } from '../format/object-header.ts';
import type { CheckCore } from './check-finding.ts';

/** Its path; null where no index object knows of one. */
export async function gonePackOf(
  { index, packs, paths }: Pick<CheckCore, 'index' | 'packs' | 'paths'>,
  digest: Uint8Array,
): Promise<string | null> {
  for (const object of index.objects.all) {
    try {
      const id = await object.packOf(digest);
      if (id !== null && packs.byId(id) === null) return paths.pack(id);
    } catch (error) {
      // An index object that is damaged, or was merged meanwhile, remembers nothing: check-packs.ts tells of it.
      if (!isDamage(error) && !isNotFound(error)) throw error;
    }
  }
  return null;
}
