/** What a daemon does about its memory at its start, in a process of its own: the flags are a process's. */
import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

/** Objects that live for a while make V8 give the young ones more space, as loading modules does. */
const GROW = `
  import { getHeapSpaceStatistics } from 'node:v8';
  const young = () => getHeapSpaceStatistics().find((space) => space.space_name === 'new_space').space_size;
  const work = () => {
    const kept = [];
    for (let i = 0; i < 2e6; i += 1) kept[i % 1e5] = { i };
  };
`;

function sizes(script: string): number[] {
  const module = JSON.stringify(new URL('../../src/base/memory.ts', import.meta.url).href);
  const words = [
    '--input-type=module',
    '--eval',
    `${GROW} import { tuneHeap } from ${module}; ${script}`,
  ];
  return JSON.parse(execFileSync(process.execPath, words, { encoding: 'utf8' })) as number[];
}

describe('tuneHeap', () => {
  it('gives back the space that young objects had taken, and keeps it small', () => {
    const [grown, tuned, later] = sizes(
      'work(); const all = [young()]; tuneHeap(); all.push(young()); work(); all.push(young()); ' +
        'console.log(JSON.stringify(all));',
    );
    // Pages that wait to be given back count too: measured are 32 MiB, then 1, then 1 to 7.
    expect(tuned).toBeLessThan(grown! / 2);
    expect(later).toBeLessThan(grown! / 2);
  });
});
