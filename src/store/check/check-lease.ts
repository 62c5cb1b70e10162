/**
 * Who has the repository, and whose commits count: leases and terms. What nobody can read of them costs no point,
 * but whoever wants the repository next waits, or what is stale may be shown.
 */
import { isNotFound } from '../format/object-header.ts';
import { decodeLease, parseLeaseName, parseTermName } from '../lease/lease-record.ts';
import { readTerm } from '../lease/terms.ts';
import type { Finding } from '../types.ts';
import { type CheckCore, findingOf } from './check-finding.ts';

const LEASE = 'whoever wants the repository next waits for 45 s; repo repair takes it away';
const TERM = 'what the terms before it wrote too late is not known any more';

export async function checkLeases({ disk, paths }: CheckCore): Promise<Finding[]> {
  const findings: Finding[] = [];
  const look = async (object: string, then: string, read: () => Promise<unknown>) => {
    try {
      await read();
    } catch (error) {
      if (isNotFound(error)) return; // renewed since it was listed
      const finding = findingOf(error, object, []);
      findings.push({ ...finding, detail: `${finding.detail}: ${then}` });
    }
  };
  for (const { name } of await disk.list(paths.lease)) {
    const object = `${paths.lease}/${name}`;
    if (parseLeaseName(name) === null) continue;
    await look(object, LEASE, async () => decodeLease(await disk.readFile(object), object));
  }
  for (const { name } of await disk.list(paths.terms)) {
    const term = parseTermName(name);
    const object = `${paths.terms}/${name}`;
    if (term !== null) await look(object, TERM, () => readTerm(disk, object, term));
  }
  return findings;
}
