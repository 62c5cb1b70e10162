/** Words of a machine that is not ours, for people to read on a terminal. */

/** For people: signs that a terminal would act on are left out. */
export const plain = (text: string): string =>
  [...text]
    .map((char) => (char < ' ' || (char >= '\u007f' && char < '\u00a0') ? ' ' : char))
    .join('');
