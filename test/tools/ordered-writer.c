/*
 * Writes in order (see ordered.h) until it is told to stop by SIGTERM, with O_DIRECT and io_uring.
 *
 *   ordered-writer --seed N --chains N --rate WRITES_PER_SECOND (0: all it can)
 *       --hot BLOCKS --hot-percent P
 *       --blocks N --log FILE [--start SEQUENCE] DEVICE...
 *
 * Prints "ready" once it writes; at the end one line: writes, seconds, sequences reached.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ordered.h"

struct chain {
  uint64_t sequence; /* last issued */
  uint64_t completed;
  uint64_t next_at; /* nanoseconds, monotonic */
  int in_flight;
  unsigned char *buffer;
};

static struct plan plan = {.chains = 32, .hot_percent = 20, .hot_blocks = 16};
static struct chain chains[MAX_CHAINS];
static int devices[MAX_VOLUMES];
static struct log_entry *log_entries;
static uint64_t interval_ns, started_at = 1;
static volatile sig_atomic_t stopping;

static void stop(int signal) {
  (void)signal;
  stopping = 1;
}

static void die(const char *what) {
  fprintf(stderr, "ordered-writer: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000ULL + (uint64_t)time.tv_nsec;
}

static void fill_block(uint32_t index, struct place place) {
  struct chain *chain = &chains[index];
  const uint32_t witness = (uint32_t)(mix(chain->sequence) % plan.chains);
  const uint64_t witnessed = chains[witness].completed;
  for (uint32_t i = 0; i < SECTORS; i++) {
    struct sector *sector = (struct sector *)(chain->buffer + i * SECTOR_BYTES);
    sector->magic = MAGIC;
    sector->sequence = chain->sequence;
    sector->chain = index;
    sector->volume = place.volume;
    sector->block = place.block;
    sector->index = i;
    sector->witness_chain = witness;
    sector->witness_sequence = witnessed;
    for (int word = 0; word < 56; word++)
      sector->fill[word] = chain->sequence * 0x9e3779b97f4a7c15ULL + word;
    sector->checksum = checksum_of(sector);
    sector->end = MAGIC;
  }
}

static struct log_entry *entry_of(uint32_t index, uint64_t sequence) {
  return &log_entries[(size_t)index * LOG_ENTRIES + sequence % LOG_ENTRIES];
}

static void issue(struct io_uring *ring, uint32_t index) {
  struct chain *chain = &chains[index];
  chain->sequence++;
  const struct place place = place_of(&plan, index, chain->sequence);
  fill_block(index, place);
  struct io_uring_sqe *entry = io_uring_get_sqe(ring);
  io_uring_prep_write(entry, devices[place.volume], chain->buffer, BLOCK_BYTES,
                      place.block * BLOCK_BYTES);
  io_uring_sqe_set_data64(entry, index);
  chain->in_flight = 1;
  struct log_entry *log = entry_of(index, chain->sequence);
  log->completed = 0;
  log->issued = now_ns(CLOCK_REALTIME);
  log->sequence = chain->sequence;
}

static void reap(struct io_uring *ring, unsigned *in_flight, uint64_t *writes) {
  struct io_uring_cqe *entry;
  unsigned head, count = 0;
  const uint64_t now = now_ns(CLOCK_MONOTONIC);
  io_uring_for_each_cqe(ring, head, entry) {
    struct chain *chain = &chains[entry->user_data];
    if (entry->res != BLOCK_BYTES) {
      errno = entry->res < 0 ? -entry->res : EIO;
      die("write");
    }
    entry_of((uint32_t)entry->user_data, chain->sequence)->completed = now_ns(CLOCK_REALTIME);
    chain->completed = chain->sequence;
    chain->in_flight = 0;
    chain->next_at += interval_ns;
    if (chain->next_at + 100000000ULL < now) chain->next_at = now; /* do not catch up for ever */
    count++;
  }
  io_uring_cq_advance(ring, count);
  *in_flight -= count;
  *writes += count;
}

/* Issues what is due; returns when the next chain is due. */
static uint64_t issue_due(struct io_uring *ring, unsigned *in_flight) {
  const uint64_t now = now_ns(CLOCK_MONOTONIC);
  uint64_t next = UINT64_MAX;
  for (uint32_t index = 0; index < plan.chains; index++) {
    struct chain *chain = &chains[index];
    if (chain->in_flight) continue;
    if (chain->next_at <= now) {
      issue(ring, index);
      (*in_flight)++;
    } else if (chain->next_at < next) {
      next = chain->next_at;
    }
  }
  return next;
}

static uint64_t run(struct io_uring *ring) {
  uint64_t writes = 0;
  unsigned in_flight = 0;
  while (!stopping || in_flight) {
    const uint64_t next = stopping ? UINT64_MAX : issue_due(ring, &in_flight);
    const uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (next == UINT64_MAX) {
      io_uring_submit_and_wait(ring, 1);
    } else {
      struct __kernel_timespec wait = {0, next > now ? (long long)(next - now) : 0};
      struct io_uring_cqe *entry;
      io_uring_submit(ring);
      io_uring_wait_cqes(ring, &entry, 1, &wait, NULL);
    }
    reap(ring, &in_flight, &writes);
  }
  return writes;
}

static void open_log(const char *path) {
  const size_t bytes = (size_t)plan.chains * LOG_ENTRIES * sizeof(struct log_entry);
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, (off_t)bytes)) die(path);
  log_entries = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (log_entries == MAP_FAILED) die("mmap");
  close(fd);
}

static uint64_t parse(int count, char **arguments) {
  uint64_t rate = 0;
  const char *log_path = NULL;
  int i = 1;
  for (; i + 1 < count && !strncmp(arguments[i], "--", 2); i += 2) {
    const char *name = arguments[i] + 2, *value = arguments[i + 1];
    const uint64_t number = strtoull(value, NULL, 10);
    if (!strcmp(name, "seed")) plan.seed = number;
    else if (!strcmp(name, "chains")) plan.chains = (uint32_t)number;
    else if (!strcmp(name, "rate")) rate = number;
    else if (!strcmp(name, "hot")) plan.hot_blocks = (uint32_t)number;
    else if (!strcmp(name, "hot-percent")) plan.hot_percent = (uint32_t)number;
    else if (!strcmp(name, "blocks")) plan.blocks = number;
    else if (!strcmp(name, "start")) started_at = number;
    else if (!strcmp(name, "log")) log_path = value;
  }
  for (; i < count && plan.volumes < MAX_VOLUMES; i++) {
    devices[plan.volumes] = open(arguments[i], O_WRONLY | O_DIRECT);
    if (devices[plan.volumes++] < 0) die(arguments[i]);
  }
  if (!plan.volumes || !plan.chains || plan.chains > MAX_CHAINS || !log_path) {
    errno = EINVAL;
    die("arguments");
  }
  open_log(log_path);
  return rate;
}

int main(int count, char **arguments) {
  const uint64_t rate = parse(count, arguments);
  interval_ns = rate ? 1000000000ULL * plan.chains / rate : 0;
  struct sigaction action = {.sa_handler = stop};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  struct io_uring ring;
  int error = io_uring_queue_init(MAX_CHAINS, &ring, 0);
  if (error) {
    errno = -error;
    die("io_uring");
  }
  const uint64_t begin = now_ns(CLOCK_MONOTONIC);
  for (uint32_t index = 0; index < plan.chains; index++) {
    if (posix_memalign((void **)&chains[index].buffer, BLOCK_BYTES, BLOCK_BYTES)) die("memory");
    chains[index].sequence = chains[index].completed = started_at - 1;
    chains[index].next_at = begin + interval_ns * index / plan.chains;
  }
  printf("ready\n");
  fflush(stdout);
  const uint64_t writes = run(&ring);
  const double seconds = (double)(now_ns(CLOCK_MONOTONIC) - begin) / 1e9;
  printf("{\"writes\":%llu,\"seconds\":%.3f}\n", (unsigned long long)writes, seconds);
  return 0;
}
