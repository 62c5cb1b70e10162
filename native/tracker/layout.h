/*
 * The pinned memory of the change tracker: one control map for all volumes of an agent, one volume
 * map for each volume, both arrays of 64-bit words that the programs write and the agent maps.
 * Shared by the BPF programs, the loader and the engine, so plain C without includes.
 *
 * Volume map, in words; every part begins on a page:
 *   header                        HEADER_WORDS
 *   in flight, data writes        FLIGHT_DATA_WORDS    sectors in flight by hash of the block
 *   in flight, writes of no data  FLIGHT_REGION_WORDS  the same by hash of the 16 MiB region
 *   planes Q0 Q1 C0 C1 O          each: summary, then leaf
 * Leaf: one bit a block. Summary: one bit a line of LINE_WORDS leaf words. Q holds marks at queue
 * and issue, C marks at completion; of each pair the one numbered by the control map's epoch & 1 is
 * active. O holds what has been harvested and not been committed.
 */
#ifndef UNDERSTUDY_TRACKER_LAYOUT_H
#define UNDERSTUDY_TRACKER_LAYOUT_H

#define TRACKER_MAGIC 0x796475747372646eULL
#define TRACKER_VERSION 1

#define PAGE_WORDS 512
#define LINE_WORDS 8
#define HEADER_WORDS PAGE_WORDS
#define FLIGHT_DATA_WORDS 65536
#define FLIGHT_REGION_WORDS 4096
#define REGION_SHIFT 15 /* sectors of a region: 16 MiB */
#define PLANES_BEGIN (HEADER_WORDS + FLIGHT_DATA_WORDS + FLIGHT_REGION_WORDS)
#define FLIGHT_DATA_BEGIN HEADER_WORDS
#define FLIGHT_REGION_BEGIN (HEADER_WORDS + FLIGHT_DATA_WORDS)

enum plane_index { PLANE_Q = 0, PLANE_C = 2, PLANE_OUTSTANDING = 4, PLANE_COUNT = 5 };

enum header_word {
  HEADER_MAGIC = 0,
  HEADER_VERSION = 1,
  HEADER_SHIFT = 2, /* sectors of a block, as a power of two */
  HEADER_BLOCKS = 3,
  HEADER_PLANE_WORDS = 4, /* leaf words of a plane, whole pages */
  HEADER_SUMMARY_WORDS = 5,
  HEADER_START = 6, /* sectors */
  HEADER_SECTORS = 7,
  HEADER_DISK_MAJOR = 8,
  HEADER_DISK_MINOR = 9,
  HEADER_DISK_SEQUENCE = 10,
  HEADER_GENERATION = 11, /* two words */
  HEADER_BOOT = 13,       /* two words: the boot id */

  /* Written by the agent. */
  HEADER_COMMITTED_EPOCH = 16,
  HEADER_SYNCED = 17,
  HEADER_STAT_OFFSET = 18, /* sectors that the block layer had counted before the programs */
  HEADER_MISSED_BASE = 19, /* queued minus completed, when the offset was taken */
  HEADER_STAT_KNOWN = 20,  /* 1 once both are known */

  /* Bits of enum taint_bit, set by programs and agent, never cleared: a new generation is due. */
  HEADER_TAINT = 24,

  /* Counters, each on a cache line of its own. */
  COUNT_DISK_QUEUED = 64,     /* sectors of the whole disk queued to be changed */
  COUNT_DISK_COMPLETED = 72,  /* ... and seen to complete */
  COUNT_DISK_ABANDONED = 80,  /* ... and ended before they became a request */
  COUNT_VOLUME_QUEUED = 88,   /* sectors of a partition queued, less those abandoned */
  COUNT_VOLUME_COMPLETED = 96, /* ... and seen to complete */
  COUNT_REPEATED_MARKS = 104, /* a flip fell into a program */
};

enum taint_bit {
  TAINT_PASSTHROUGH = 1, /* a command that may write went past the block layer */
  TAINT_UNSTABLE = 2,    /* a program saw too many flips in a row */
  TAINT_BEYOND_END = 4,  /* a write beyond the volume's end: the disk has grown */
  TAINT_UNTRACKED = 8,   /* the block layer completed more than was queued */
  TAINT_RESIZED = 16,
  TAINT_REPLACED = 32,
  TAINT_PROGRAM_MISSED = 64, /* queue and issue programs were both skipped by the recursion guard */
  TAINT_PROGRAM_GONE = 128,
};

/* Control map, in words. */
enum control_word { CONTROL_EPOCH = 0, CONTROL_MAGIC = 64, CONTROL_VERSION = 65 };
#define CONTROL_WORDS PAGE_WORDS

#endif
