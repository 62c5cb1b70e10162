/** The plan that the help of `plan apply` shows can be copied: it is JSON as it stands, at any width. */
import { expect, it } from 'vitest';
import { parseCommandLine } from '../../src/cli/adapter.ts';
import { commandGroups } from '../../src/cli/commands/index.ts';

it.each([60, 80, 200])('the plan in the help is JSON at %i columns', async (columns) => {
  const shown = await parseCommandLine(commandGroups, ['plan', 'apply', '--help'], columns);
  const text = shown.kind === 'text' ? shown.text : '';
  const plan = JSON.parse(text.slice(text.indexOf('{'))) as { name: string; groups: unknown[] };
  expect([plan.name, plan.groups.length]).toEqual(['shop', 2]);
});
