/*
 * What writer and checker of ordered writes agree on. A chain issues its writes one at a time: the
 * next is issued after the last has completed. Write `sequence` of a chain goes to a place that
 * both compute from the seed, so a state of the volumes is right exactly if for every chain it is
 * what the writes 1..n leave, for some n, with the sectors of the one in flight either way. Every
 * sector describes itself. It also names a witness: a write of another chain that had completed
 * before this one was issued, so that a state in which effect comes without its cause shows,
 * whatever the clocks say.
 */
#ifndef ORDERED_H
#define ORDERED_H

#include <stdint.h>

#define BLOCK_BYTES 4096
#define SECTOR_BYTES 512
#define SECTORS 8
#define MAGIC 0x6f72646572656421ULL
#define MAX_CHAINS 256
#define MAX_VOLUMES 8
#define LOG_ENTRIES 32768

struct sector {
  uint64_t magic;
  uint64_t sequence;
  uint32_t chain;
  uint32_t volume;
  uint64_t block;
  uint32_t index;
  uint32_t witness_chain;
  uint64_t witness_sequence;
  uint64_t fill[56];
  uint64_t checksum;
  uint64_t end;
};

/* When a write was issued and had completed: nanoseconds of the wall clock, in shared memory. */
struct log_entry {
  uint64_t sequence;
  uint64_t issued;
  uint64_t completed;
};

struct plan {
  uint64_t seed;
  uint32_t chains;
  uint32_t volumes;
  uint64_t blocks;     /* of each volume */
  uint32_t hot_blocks; /* in all; owned by the first chains, one or more each */
  uint32_t hot_percent;
};

struct place {
  uint32_t volume;
  uint64_t block;
};

static inline uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ x >> 33;
}

/* Blocks of a volume that one chain owns, a stripe: no two chains meet in a block. */
static inline uint64_t stripe_blocks(const struct plan *plan) {
  return plan->blocks / plan->chains;
}

/* The hot blocks of a chain are the first of its stripe on the first volume. */
static inline uint32_t hot_blocks_of(const struct plan *plan, uint32_t chain) {
  const uint32_t owners = plan->hot_blocks < plan->chains ? plan->hot_blocks : plan->chains;
  return chain < owners ? plan->hot_blocks / owners : 0;
}

static inline struct place place_of(const struct plan *plan, uint32_t chain, uint64_t sequence) {
  const uint64_t number = mix(plan->seed ^ mix(((uint64_t)chain << 40) + sequence));
  const uint64_t begin = stripe_blocks(plan) * chain;
  const uint32_t hot = hot_blocks_of(plan, chain);
  const uint32_t owners = plan->hot_blocks < plan->chains ? plan->hot_blocks : plan->chains;
  /* Over all chains, hot_percent of the writes are hot. */
  const uint64_t percent = owners ? (uint64_t)plan->hot_percent * plan->chains / owners : 0;
  if (hot && number % 100 < percent) return (struct place){0, begin + (number >> 32) % hot};
  const uint32_t volume = (uint32_t)(number >> 16) % plan->volumes;
  return (struct place){volume, begin + (number >> 24) % stripe_blocks(plan)};
}

static inline uint64_t checksum_of(const struct sector *sector) {
  const uint64_t *words = (const uint64_t *)sector;
  uint64_t sum = MAGIC;
  for (int i = 0; i < 62; i++) sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15ULL;
  return sum;
}

#endif
