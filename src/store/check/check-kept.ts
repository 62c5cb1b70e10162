/**
 * Checks of what says how long points are kept, and where else: holds, policies, notes of copies. A hold
 * whose point is gone is the worst that can be told of it: somebody relied on that point.
 */

import { isNotFound } from '../format/object-header.ts';
import { listNotes, readNote } from '../points/copy-notes.ts';
import { listPoints } from '../repository/repository.ts';
import { heldPoints, readHold } from '../retention/holds.ts';
import { policyPaths, readPolicy } from '../retention/policies.ts';
import type { Finding } from '../types.ts';
import { type CheckCore, findingOf } from './check-finding.ts';

interface Checked {
  objects: number;
  readonly findings: Finding[];
}

export async function checkKept(core: CheckCore): Promise<Checked> {
  const checked: Checked = { objects: 0, findings: [] };
  await checkHolds(core, checked);
  for (const path of await policyPaths(core)) {
    await look(checked, path, () => readPolicy(core, path));
  }
  for (const { repository, number } of await listNotes(core)) {
    const object = core.paths.copyNote(repository, number);
    await look(checked, object, () => readNote(core, repository, number));
  }
  return checked;
}

async function checkHolds(core: CheckCore, checked: Checked): Promise<void> {
  const held = await heldPoints(core);
  for (const id of held) await look(checked, core.paths.hold(id), () => readHold(core, id));
  // Points after holds: what was held when they were listed is there.
  const without = new Set(held);
  if (held.length > 0) for await (const { id } of listPoints(core)) without.delete(id);
  for (const id of without) {
    const object = core.paths.hold(id);
    if (!(await core.disk.exists(object))) continue; // released and dropped meanwhile
    const detail = 'the point that it holds is gone';
    checked.findings.push({ kind: 'missing-object', object, detail, points: [id] });
  }
}

async function look(checked: Checked, object: string, read: () => Promise<unknown>) {
  try {
    await read();
    checked.objects += 1;
  } catch (error) {
    if (isNotFound(error)) return; // released, or replaced, since it was listed
    checked.objects += 1;
    checked.findings.push(findingOf(error, object, []));
  }
}
