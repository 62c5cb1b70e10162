/*
 * What the tests take out of the programs to see that the oracles notice. In the shipped object
 * every one of these is a constant and leaves nothing behind.
 */
#ifndef UNDERSTUDY_TEST_KNOBS_H
#define UNDERSTUDY_TEST_KNOBS_H

enum omission {
  OMIT_QUEUE_MARKS = 1,
  OMIT_ISSUE_MARKS = 2,
  OMIT_COMPLETION_MARKS = 4,
  OMIT_FLIGHT_COUNTS = 8,
  OMIT_DISCARD = 16,
  OMIT_WRITE_ZEROES = 32,
  OMIT_LONG_RANGES = 64,
  OMIT_PLAIN_WRITES = 128,
};

#ifdef UNDERSTUDY_TEST_KNOBS

const volatile __u32 omit;
const volatile __u32 lose_one_in;

#define OMITS(what) (omit & (what))
#define OMITS_OPERATION(operation)                                        \
  (((omit & OMIT_DISCARD) && (operation) == OPERATION_DISCARD) ||         \
   ((omit & OMIT_WRITE_ZEROES) && (operation) == OPERATION_WRITE_ZEROES) || \
   ((omit & OMIT_PLAIN_WRITES) && (operation) == OPERATION_WRITE))
#define LIMIT_WORDS(words) ((omit & OMIT_LONG_RANGES) && (words) > 40 ? 40 : (words))
/* Both copies lose the same completions: those of every so many blocks. */
#define LOSES_COMPLETION() (lose_one_in && (rq->__sector >> 3) % lose_one_in == 0)

#else

#define OMITS(what) 0
#define OMITS_OPERATION(operation) 0
#define LIMIT_WORDS(words) (words)
#define LOSES_COMPLETION() 0

#endif
#endif
