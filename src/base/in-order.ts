/**
 * Work on many items at a time whose results come in the order of the items, as if one had been done after
 * the other: so whoever adds them up, writes them or is told of the first failure sees no difference. No more
 * than `parallel` results exist that were not taken yet, which bounds memory and holds back a fast source.
 */

/**
 * `parallel` 1: the next item is begun when the result before it was taken and the next one is asked for.
 * Whoever stops taking, or is thrown an error, begins no further work; what is under way ends by itself, and
 * its results go to `discard`.
 */
export async function* inOrder<Item, Result>(
  items: Iterable<Item>,
  parallel: number,
  work: (item: Item) => Promise<Result>,
  discard: (result: Result) => void = () => undefined,
): AsyncGenerator<Result, void, undefined> {
  const source = items[Symbol.iterator]();
  const begun: Promise<Result>[] = [];
  let isOver = false;
  const fill = () => {
    while (!isOver && begun.length < Math.max(1, parallel)) {
      const next = source.next();
      if (next.done === true) {
        isOver = true;
        return;
      }
      const result = work(next.value);
      result.catch(() => undefined); // it is thrown when its turn comes, or nobody asks any more
      begun.push(result);
    }
  };
  try {
    for (;;) {
      fill();
      const first = begun[0];
      if (first === undefined) return;
      const result = await first;
      begun.shift();
      yield result;
    }
  } finally {
    for (const result of begun) result.then(discard, () => undefined);
  }
}
