/** format.json once more, and whole: what it says that nothing else depends on may be wrong without being noticed. */
import { formatFault, readFormatObject } from '../format/format.ts';
import type { Finding } from '../types.ts';
import { type CheckCore, findingOf } from './check-finding.ts';

export async function checkFormat({ disk, paths }: CheckCore): Promise<Finding[]> {
  const object = paths.format;
  try {
    if ((await readFormatObject(disk, paths)) === null) {
      return [{ kind: 'missing-object', object, detail: 'it is missing', points: [] }];
    }
    const detail = formatFault(await disk.readFile(object));
    return detail === null ? [] : [{ kind: 'damaged-object', object, detail, points: [] }];
  } catch (error) {
    return [findingOf(error, object, [])];
  }
}
