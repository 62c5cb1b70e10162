/*
 * The oracle of ordered writes (see ordered.h): keeps images of the volumes from what it is sent,
 * and says for each cut whether they are a state in which a power cut at T could have left them.
 *
 *   ordered-checker --seed N --chains N --hot BLOCKS --hot-percent P --blocks N --volumes N
 *       --log FILE
 *
 * Standard input: frames {u32 kind, u32 volume, u64 offset, u64 length}, kind 1 followed by
 * `length` bytes that lie at `offset`; kind 2 a cut at `offset` nanoseconds of the wall clock. For
 * each cut one line: "ok WRITES" or "bad REASON".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ordered.h"

/* The agent reads the clock, then flips; it may be kept from the processor in between. */
#define FUTURE_SLACK_NS 50000000ULL
#define BAD_SECTOR UINT64_MAX

struct frame {
  uint32_t kind, volume;
  uint64_t offset, length;
};

struct seen {
  uint64_t sequence[SECTORS]; /* 0: zeros; BAD_SECTOR: damaged */
  uint64_t witness_sequence[SECTORS];
  uint32_t witness_chain[SECTORS];
};

struct chain {
  uint64_t applied; /* `expected` holds what the writes up to here leave */
};

static struct plan plan;
static struct seen *seen[MAX_VOLUMES];
static uint64_t *expected[MAX_VOLUMES];
static struct chain chains[MAX_CHAINS];
/* Of each chain: the newest write in the images, and the newest that any had seen completed. */
static uint64_t newest[MAX_CHAINS], witnessed[MAX_CHAINS];
static struct log_entry *log_entries;
static char reason[512];

static void die(const char *what) {
  fprintf(stderr, "ordered-checker: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int bad(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof(reason), format, arguments);
  va_end(arguments);
  return 0;
}

static void take_sector(uint32_t volume, uint64_t block, uint32_t index,
                        const struct sector *sector) {
  struct seen *place = &seen[volume][block];
  static const unsigned char zeros[SECTOR_BYTES];
  place->witness_sequence[index] = place->witness_chain[index] = 0;
  place->sequence[index] = 0;
  if (!memcmp(sector, zeros, SECTOR_BYTES)) return;
  const uint32_t owner = (uint32_t)(block / stripe_blocks(&plan));
  const int is_sound = sector->magic == MAGIC && sector->end == MAGIC && sector->volume == volume &&
                       sector->block == block && sector->index == index && sector->chain == owner &&
                       sector->checksum == checksum_of(sector) &&
                       sector->witness_chain < plan.chains;
  place->sequence[index] = is_sound ? sector->sequence : BAD_SECTOR;
  if (!is_sound) return;
  place->witness_chain[index] = sector->witness_chain;
  place->witness_sequence[index] = sector->witness_sequence;
}

/* From what is in the images now: what was sent and overridden since does not count. */
static void find_newest(void) {
  memset(newest, 0, sizeof(newest));
  memset(witnessed, 0, sizeof(witnessed));
  for (uint32_t volume = 0; volume < plan.volumes; volume++) {
    for (uint64_t block = 0; block < stripe_blocks(&plan) * plan.chains; block++) {
      const struct seen *place = &seen[volume][block];
      uint64_t *most = &newest[block / stripe_blocks(&plan)];
      for (uint32_t i = 0; i < SECTORS; i++) {
        const uint64_t sequence = place->sequence[i];
        if (sequence != BAD_SECTOR && sequence > *most) *most = sequence;
        uint64_t *witness = &witnessed[place->witness_chain[i]];
        if (place->witness_sequence[i] > *witness) *witness = place->witness_sequence[i];
      }
    }
  }
}

static void read_fully(void *into, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t count = read(0, (char *)into + done, length - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) exit(count == 0 && done == 0 ? 0 : 1);
    done += (size_t)count;
  }
}

static void take_piece(const struct frame *frame) {
  static unsigned char bytes[BLOCK_BYTES];
  for (uint64_t done = 0; done < frame->length; done += BLOCK_BYTES) {
    read_fully(bytes, BLOCK_BYTES);
    const uint64_t block = (frame->offset + done) / BLOCK_BYTES;
    if (block >= plan.blocks) continue;
    for (uint32_t i = 0; i < SECTORS; i++)
      take_sector(frame->volume, block, i, (const struct sector *)(bytes + i * SECTOR_BYTES));
  }
}

/*
 * `newest` is the newest write of which anything is there. All before it must be there whole, and
 * nothing else.
 */
static int check_chain(uint32_t index) {
  const uint64_t last = newest[index];
  struct chain *chain = &chains[index];
  if (last == 0) return 1;
  if (last < chain->applied)
    return bad("chain %u went back from %llu to %llu", index, chain->applied, last);
  for (uint64_t sequence = chain->applied + 1; sequence < last; sequence++) {
    const struct place place = place_of(&plan, index, sequence);
    expected[place.volume][place.block] = sequence;
  }
  chain->applied = last - 1;
  const struct place newest_place = place_of(&plan, index, last);
  const uint64_t begin = stripe_blocks(&plan) * index, end = begin + stripe_blocks(&plan);
  for (uint32_t volume = 0; volume < plan.volumes; volume++) {
    for (uint64_t block = begin; block < end; block++) {
      const uint64_t want = expected[volume][block];
      const int may_be_new = volume == newest_place.volume && block == newest_place.block;
      for (uint32_t i = 0; i < SECTORS; i++) {
        const uint64_t have = seen[volume][block].sequence[i];
        if (have == want || (may_be_new && have == last)) continue;
        return bad("chain %u volume %u block %llu sector %u: write %lld, %llu due, newest %llu",
                   index, volume, block, i, (long long)have, want, last);
      }
    }
  }
  return 1;
}

static int check_times(uint32_t index, uint64_t time) {
  const uint64_t last = newest[index];
  const struct log_entry *entries = log_entries + (size_t)index * LOG_ENTRIES;
  const struct log_entry *next = &entries[(last + 1) % LOG_ENTRIES];
  if (next->sequence == last + 1 && next->completed && next->completed < time)
    return bad("chain %u: write %llu completed %llu us before T and is missing", index, last + 1,
               (time - next->completed) / 1000);
  const struct log_entry *newest_entry = &entries[last % LOG_ENTRIES];
  if (last && newest_entry->sequence == last && newest_entry->issued > time + FUTURE_SLACK_NS)
    return bad("chain %u: write %llu was issued %llu us after T and is there", index, last,
               (newest_entry->issued - time) / 1000);
  return 1;
}

static int check_cut(uint64_t time) {
  find_newest();
  for (uint32_t index = 0; index < plan.chains; index++) {
    if (!check_chain(index) || !check_times(index, time)) return 0;
    if (witnessed[index] > newest[index])
      return bad("chain %u: write %llu had completed before one that is there, and is missing",
                 index, witnessed[index]);
  }
  return 1;
}

static void parse(int count, char **arguments) {
  const char *log_path = NULL;
  for (int i = 1; i + 1 < count; i += 2) {
    const char *name = arguments[i] + 2, *value = arguments[i + 1];
    const uint64_t number = strtoull(value, NULL, 10);
    if (!strcmp(name, "seed")) plan.seed = number;
    else if (!strcmp(name, "chains")) plan.chains = (uint32_t)number;
    else if (!strcmp(name, "hot")) plan.hot_blocks = (uint32_t)number;
    else if (!strcmp(name, "hot-percent")) plan.hot_percent = (uint32_t)number;
    else if (!strcmp(name, "blocks")) plan.blocks = number;
    else if (!strcmp(name, "volumes")) plan.volumes = (uint32_t)number;
    else if (!strcmp(name, "log")) log_path = value;
  }
  if (!plan.volumes || !plan.blocks || !plan.chains || !log_path) {
    errno = EINVAL;
    die("arguments");
  }
  const size_t bytes = (size_t)plan.chains * LOG_ENTRIES * sizeof(struct log_entry);
  int fd = open(log_path, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, (off_t)bytes)) die(log_path);
  log_entries = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (log_entries == MAP_FAILED) die("mmap");
}

int main(int count, char **arguments) {
  parse(count, arguments);
  for (uint32_t volume = 0; volume < plan.volumes; volume++) {
    seen[volume] = calloc(plan.blocks, sizeof(struct seen));
    expected[volume] = calloc(plan.blocks, sizeof(uint64_t));
    if (!seen[volume] || !expected[volume]) die("memory");
  }
  for (;;) {
    struct frame frame;
    read_fully(&frame, sizeof(frame));
    if (frame.kind == 1 && frame.volume < plan.volumes) {
      take_piece(&frame);
    } else if (frame.kind == 2) {
      uint64_t writes = 0;
      const int is_right = check_cut(frame.offset);
      for (uint32_t index = 0; index < plan.chains; index++) writes += newest[index];
      if (is_right) printf("ok %llu\n", (unsigned long long)writes);
      else printf("bad %s\n", reason);
      fflush(stdout);
    } else {
      errno = EPROTO;
      die("frame");
    }
  }
}
