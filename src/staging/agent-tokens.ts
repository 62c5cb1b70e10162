/**
 * Tokens of agents: each lets an agent in as one server, and opens nothing else. Who steals one from a
 * server can neither read what staging holds nor have anything dropped, of that server or of others.
 *
 *   "agent1.<server, base64url>.<revision>.<signature>" (signed-parts.ts)
 *
 * Made of the service's token: none is kept, and the same comes when one is asked for again. To revoke those
 * of a server counts its revision up: DATA/agent-revisions, {"revisions": {<server>: <revision>}}.
 */
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { replaceFile } from '../base/replace-file.ts';
import { isServerId, type ServerId } from '../model/replication.ts';
import { signedParts, signParts } from './signed-parts.ts';

const KIND = 'agent1';
const PURPOSE = 'understudy agent token';
const NAME = 'agent-revisions';

export class AgentTokens {
  private readonly disk: Disk;
  private readonly folder: string;
  private readonly token: string;
  private revisions: ReadonlyMap<ServerId, number>;
  private writing: Promise<unknown> = Promise.resolve();

  private constructor(disk: Disk, folder: string, token: string, known: Map<ServerId, number>) {
    this.disk = disk;
    this.folder = folder;
    this.token = token;
    this.revisions = known;
  }

  /** `token`: the service's. ERR_REVISIONS_DAMAGED, ERR_DISK_*. */
  static async open(disk: Disk, folder: string, token: string): Promise<AgentTokens> {
    const path = `${folder}/${NAME}`;
    const known = (await disk.exists(path)) ? decode(await disk.readFile(path), path) : new Map();
    return new AgentTokens(disk, folder, token, known);
  }

  /** ERR_AGENT_NAME. The server need not be known yet. */
  tokenOf(server: ServerId): string {
    checkName(server);
    const name = Buffer.from(server).toString('base64url');
    return signParts(this.token, PURPOSE, [KIND, name, String(this.revisionOf(server))]);
  }

  /** As which server it lets an agent in; null: it is none of ours, or was revoked. */
  serverOf(presented: string): ServerId | null {
    const [kind, name = '', revision] = signedParts(this.token, PURPOSE, presented) ?? [];
    if (kind !== KIND) return null;
    const server = Buffer.from(name, 'base64url').toString('utf8');
    return revision === String(this.revisionOf(server)) ? server : null;
  }

  /** No token that was made for the server so far is good any more, once it resolves. ERR_AGENT_NAME. */
  async revoke(server: ServerId): Promise<void> {
    checkName(server);
    const written = this.writing.then(async () => {
      const next = new Map(this.revisions).set(server, this.revisionOf(server) + 1);
      const text = JSON.stringify({ revisions: Object.fromEntries(next) }, null, 1);
      await replaceFile(this.disk, `${this.folder}/${NAME}`, [Buffer.from(text)]);
      this.revisions = next;
    });
    this.writing = written.catch(() => undefined);
    await written;
  }

  private revisionOf(server: ServerId): number {
    return this.revisions.get(server) ?? 1;
  }
}

function checkName(server: string): void {
  if (isServerId(server)) return;
  throw new UnderstudyError('ERR_AGENT_NAME', `not a server name: "${server}"`);
}

/** A damaged list would let those in whose tokens were revoked. */
function decode(bytes: Uint8Array, path: string): Map<ServerId, number> {
  const message = `${path} is damaged, or of another version`;
  const damaged = (cause?: unknown) =>
    new UnderstudyError('ERR_REVISIONS_DAMAGED', message, { path }, cause);
  let revisions: unknown;
  try {
    ({ revisions } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { revisions: unknown });
  } catch (cause) {
    throw damaged(cause);
  }
  if (typeof revisions !== 'object' || revisions === null) throw damaged();
  const entries = Object.entries(revisions as Record<string, unknown>);
  if (!entries.every(([name, count]) => isServerId(name) && Number.isSafeInteger(count))) {
    throw damaged();
  }
  return new Map(entries as [ServerId, number][]);
}
