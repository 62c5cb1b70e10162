/**
 * The version of this program, from package.json: shown by `--version`, and told to the other side in
 * Hello and Welcome. What may speak with what is decided by the protocol's own version, not by this.
 */
import { readFileSync } from 'node:fs';

const manifest = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string };

export const VERSION: string = manifest.version;
