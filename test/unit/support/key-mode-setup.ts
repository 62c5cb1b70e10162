/** Each test is a world of its own for the watch over nonces. */
import { beforeEach } from 'vitest';
import { nonceWatch } from './key-mode.ts';

beforeEach(() => nonceWatch.forget());
