// Test runner settings. Projects: `unit` runs anywhere and fast; `simulation` runs whole worlds in virtual
// time; `encrypted` runs the store's tests over encrypted repositories; `system` needs root, loop devices and eBPF;
// `guests` boots virtual machines. Of the last two one file runs at a time.
import { defineConfig } from 'vitest/config';

const guests = [
  'test/system/{damaged-point,drill,failover,plans,prepare,proof,qemu-launcher}.test.ts',
];
/** What is waited for comes when it comes: its limit is there to end a test that hangs, on any machine. */
const patient = { hookTimeout: 120_000, expect: { poll: { timeout: 40_000 } } };
const wholePrograms = {
  ...{ ...patient, testTimeout: 600_000, hookTimeout: 300_000, fileParallelism: false },
};

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...patient,
          ...{ name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 300_000 },
        },
      },
      {
        // What the store promises, once more over encrypted repositories.
        test: {
          ...patient,
          name: 'encrypted',
          include: [
            'test/unit/store-{beside,copy,copy-crash,crash,damage,faults,healed,ingest,no-room,session,together,write-path}.test.ts',
          ],
          // The plain runs take more calls; STORE_CRASH_STRIDE=1 takes every one.
          env: { TEST_ENCRYPTED: '1', STORE_CRASH_STRIDE: process.env.STORE_CRASH_STRIDE ?? '97' },
          setupFiles: ['test/unit/support/key-mode-setup.ts'],
          testTimeout: 300_000,
        },
      },
      {
        test: {
          ...patient,
          ...{
            name: 'simulation',
            include: ['test/simulation/**/*.test.ts'],
            testTimeout: 300_000,
          },
        },
      },
      {
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          exclude: guests,
          ...wholePrograms,
        },
      },
      { test: { name: 'guests', include: guests, ...wholePrograms } },
    ],
  },
});
