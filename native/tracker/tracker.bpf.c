// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The change tracker's programs, one object for each volume, the volume's numbers being constants
 * of the object. Promise P1: what changes content is marked before the driver sees it, and again
 * when it has completed. A mark cannot be dropped: it is a bit, not a message.
 *
 *   block_bio_queue     count in flight, mark Q. A bio is seen here once, whole, before any split.
 *   block_rq_issue      mark Q again: md linear re-aims a bio that was traced already.
 *   block_rq_complete   mark C, then take off what was in flight. Twice, the second copy only
 *                       marks: the recursion guard drops a completion nested in the same program.
 *   block_bio_complete  a bio that ended without becoming a request (REQ_NOWAIT): take off.
 *
 * Marking and flips need no grace period: a program stores its mark, then reads the epoch again;
 * the agent stores the epoch, then harvests. Whichever comes first, the mark is harvested or
 * repeated in the new plane. In-flight counts are exactly additive in sectors, so splits and merges
 * cancel; what was missed leaves a count that is not zero, which costs extra reads and never a
 * change.
 */
#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "layout.h"
#include "test_knobs.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 disk_major;
const volatile __u32 disk_minor;
const volatile __u64 volume_start;
const volatile __u64 volume_sectors;
const volatile __u32 is_whole_disk;
const volatile __u32 block_shift;
const volatile __u64 plane_words;
const volatile __u64 summary_words;

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, PLANES_BEGIN);
  __type(key, __u32);
  __type(value, __u64);
} volume SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, CONTROL_WORDS);
  __type(key, __u32);
  __type(value, __u64);
} control SEC(".maps");

#define MAX_MARK_ROUNDS 4
#define MAX_MERGED_BIOS 65536

/* Sectors [first, first + count) of the volume. */
struct range {
  __u64 first;
  __u64 count;
};

static __always_inline __u64 *word(__u64 index) {
  __u32 key = index;
  return bpf_map_lookup_elem(&volume, &key);
}

static __always_inline void add(__u64 index, __s64 amount) {
  __u64 *at = word(index);
  if (at) __sync_fetch_and_add(at, amount);
}

static __always_inline void taint(__u64 bit) {
  __u64 *at = word(HEADER_TAINT);
  if (at) __sync_fetch_and_or(at, bit);
}

/*
 * Sets bits, unless they are set already. Skipping the store is sound where loads are not
 * reordered: the epoch is loaded afterwards. Elsewhere the value-returning form is a full barrier.
 */
static __always_inline void set_bits(__u64 index, __u64 bits) {
  __u64 *at = word(index);
  if (!at) return;
#ifdef __TARGET_ARCH_x86
  if ((*(volatile __u64 *)at & bits) == bits) return;
#endif
  __u64 before = __sync_fetch_and_or(at, bits);
  asm volatile("" ::"r"(before));
}

/* Leaf, then summary: a harvester exchanges the summary, then takes the leaves. */
static __always_inline void mark_word(__u64 plane, __u64 leaf, __u64 bits) {
  set_bits(plane + summary_words + leaf, bits);
  __u64 line = leaf / LINE_WORDS;
  set_bits(plane + (line >> 6), 1ULL << (line & 63));
}

struct mark_loop {
  __u64 plane;
  __u64 first;
  __u64 last;
};

static long mark_step(__u32 index, struct mark_loop *loop) {
  __u64 leaf = (loop->first >> 6) + index;
  __u64 bits = ~0ULL;
  if (index == 0) bits &= ~0ULL << (loop->first & 63);
  if (leaf == loop->last >> 6) bits &= ~0ULL >> (63 - (loop->last & 63));
  if (leaf < plane_words) mark_word(loop->plane, leaf, bits);
  return 0;
}

/* Blocks [first, last], in one plane. */
static __noinline int mark_blocks(__u64 plane, __u64 first, __u64 last) {
  if (first == last && (first >> 6) < plane_words) {
    mark_word(plane, first >> 6, 1ULL << (first & 63));
    return 0;
  }
  struct mark_loop loop = {plane, first, last};
  bpf_loop(LIMIT_WORDS((last >> 6) - (first >> 6) + 1), mark_step, &loop, 0);
  return 0;
}

static __noinline int mark(__u32 pair, __u64 first_sector, __u64 sectors) {
  __u32 key = CONTROL_EPOCH;
  volatile __u64 *epoch = bpf_map_lookup_elem(&control, &key);
  if (!epoch || !sectors) return 0;
  __u64 first = first_sector >> block_shift;
  __u64 last = (first_sector + sectors - 1) >> block_shift;
  __u64 seen = *epoch;
  for (int round = 0; round < MAX_MARK_ROUNDS; round++) {
    __u64 plane = PLANES_BEGIN + (pair + (seen & 1)) * (summary_words + plane_words);
    mark_blocks(plane, first, last);
    __u64 now = *epoch;
    if (now == seen) return 0;
    seen = now;
    add(COUNT_REPEATED_MARKS, 1);
  }
  taint(TAINT_UNSTABLE);
  return 0;
}

struct flight_loop {
  __u64 begin;
  __u64 mask;
  __u64 shift;
  __u64 first;
  __u64 end;
  __s64 sign;
};

static long flight_step(__u32 index, struct flight_loop *loop) {
  __u64 bucket = (loop->first >> (loop->shift & 63)) + index;
  __u64 from = bucket << (loop->shift & 63);
  __u64 to = (bucket + 1) << (loop->shift & 63);
  if (from < loop->first) from = loop->first;
  if (to > loop->end) to = loop->end;
  add(loop->begin + (bucket & loop->mask), loop->sign * (__s64)(to - from));
  return 0;
}

/*
 * Data writes count by block. Writes of no data can be 4 GiB long and count by region. Which one it
 * is depends on the operation alone, which no split or merge changes.
 */
static __noinline int count_flight(__u32 operation, __u64 first, __u64 sectors, __s64 sign) {
  if (OMITS(OMIT_FLIGHT_COUNTS) || !sectors) return 0;
  int no_data = operation == OPERATION_DISCARD || operation == OPERATION_SECURE_ERASE ||
                operation == OPERATION_WRITE_ZEROES;
  struct flight_loop loop = {
      .begin = no_data ? FLIGHT_REGION_BEGIN : FLIGHT_DATA_BEGIN,
      .mask = no_data ? FLIGHT_REGION_WORDS - 1 : FLIGHT_DATA_WORDS - 1,
      .shift = no_data ? REGION_SHIFT : block_shift,
      .first = first,
      .end = first + sectors,
      .sign = sign,
  };
  __u64 buckets = ((loop.end - 1) >> loop.shift) - (first >> loop.shift) + 1;
  if (buckets == 1) {
    flight_step(0, &loop);
    return 0;
  }
  bpf_loop(buckets, flight_step, &loop, 0);
  return 0;
}

static __always_inline int is_ours(struct gendisk *disk) {
  return disk->first_minor == disk_minor && disk->major == disk_major;
}

/* The part of a write to the disk that lies in the volume, in the volume's own sectors. */
static __always_inline struct range clip(__u64 sector, __u64 sectors) {
  struct range none = {0, 0};
  __u64 end = sector + sectors;
  if (end > volume_start + volume_sectors) {
    if (is_whole_disk) taint(TAINT_BEYOND_END);
    end = volume_start + volume_sectors;
  }
  if (sector < volume_start) sector = volume_start;
  if (end <= sector) return none;
  struct range part = {sector - volume_start, end - sector};
  return part;
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(bio_queue, struct bio *bio) {
  __u32 operation = bio->bi_opf & OPERATION_MASK;
  if (!(operation & 1) || !is_ours(bio->bi_bdev->bd_disk)) return 0;
  __u64 sectors = bio->bi_iter.bi_size >> 9;
  if (!sectors || OMITS_OPERATION(operation)) return 0;
  /* First: whoever sees this counter unmoved knows that nothing below has happened. */
  add(COUNT_DISK_QUEUED, sectors);
  struct range part = clip(bio->bi_iter.bi_sector, sectors);
  if (!part.count) return 0;
  if (!is_whole_disk) add(COUNT_VOLUME_QUEUED, part.count);
  /* Before the mark: whoever takes the mark sees the write in flight. */
  count_flight(operation, part.first, part.count, 1);
  if (!OMITS(OMIT_QUEUE_MARKS)) mark(PLANE_Q, part.first, part.count);
  return 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(rq_issue, struct request *rq) {
  __u32 operation = rq->cmd_flags & OPERATION_MASK;
  if (!(operation & 1) || !is_ours(rq->q->disk)) return 0;
  if (operation == OPERATION_PASSTHROUGH_OUT) {
    taint(TAINT_PASSTHROUGH);
    return 0;
  }
  __u64 sectors = rq->__data_len >> 9;
  if (!sectors || OMITS_OPERATION(operation)) return 0;
  struct range part = clip(rq->__sector, sectors);
  if (part.count && !OMITS(OMIT_ISSUE_MARKS)) mark(PLANE_Q, part.first, part.count);
  return 0;
}

struct completion {
  struct bio *bio;
  __u64 bytes_left;
  __u32 operation;
  __u32 counts;
};

/* The mark, then the count: whoever sees the count at zero finds the mark. */
static __noinline int complete(__u64 sector, __u64 sectors, __u32 operation, __u32 counts) {
  struct range part = clip(sector, sectors);
  if (!part.count) return 0;
  if (!OMITS(OMIT_COMPLETION_MARKS)) mark(PLANE_C, part.first, part.count);
  if (!counts) return 0;
  count_flight(operation, part.first, part.count, -1);
  if (!is_whole_disk) add(COUNT_VOLUME_COMPLETED, part.count);
  return 0;
}

static long complete_bio(__u32 index, struct completion *state) {
  struct bio *bio = state->bio;
  if (!bio || !state->bytes_left) return 1;
  __u64 bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
  if (bytes > state->bytes_left) bytes = state->bytes_left;
  complete(BPF_CORE_READ(bio, bi_iter.bi_sector), bytes >> 9, state->operation, state->counts);
  state->bytes_left -= bytes;
  state->bio = BPF_CORE_READ(bio, bi_next);
  return 0;
}

static __always_inline int on_complete(struct request *rq, __u32 bytes, __u32 counts) {
  __u32 operation = rq->cmd_flags & OPERATION_MASK;
  if (!(operation & 1) || !is_ours(rq->q->disk)) return 0;
  if (operation == OPERATION_PASSTHROUGH_OUT || OMITS_OPERATION(operation)) return 0;
  __u64 sectors = bytes >> 9;
  /* FUA completes twice, the second time with nothing. */
  if (!sectors || LOSES_COMPLETION()) return 0;
  if (counts) add(COUNT_DISK_COMPLETED, sectors);
  /* Merged discards need not be neighbours: each bio tells its own place. */
  if (operation != OPERATION_WRITE && rq->bio && rq->bio->bi_next) {
    struct completion state = {rq->bio, bytes, operation, counts};
    bpf_loop(MAX_MERGED_BIOS, complete_bio, &state, 0);
    return 0;
  }
  complete(rq->__sector, sectors, operation, counts);
  return 0;
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(rq_complete, struct request *rq, int error, unsigned int bytes) {
  return on_complete(rq, bytes, 1);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(rq_complete_again, struct request *rq, int error, unsigned int bytes) {
  return on_complete(rq, bytes, 0);
}

SEC("tp_btf/block_bio_complete")
int BPF_PROG(bio_complete, struct request_queue *queue, struct bio *bio) {
  __u32 operation = bio->bi_opf & OPERATION_MASK;
  if (!(operation & 1) || !is_ours(bio->bi_bdev->bd_disk)) return 0;
  __u64 sectors = bio->bi_iter.bi_size >> 9;
  if (!sectors || OMITS_OPERATION(operation)) return 0;
  struct range part = clip(bio->bi_iter.bi_sector, sectors);
  if (part.count) {
    count_flight(operation, part.first, part.count, -1);
    if (!is_whole_disk) add(COUNT_VOLUME_QUEUED, -(__s64)part.count);
  }
  /* Last: whoever sees it counted as abandoned knows that it is in flight no more. */
  add(COUNT_DISK_ABANDONED, sectors);
  return 0;
}
