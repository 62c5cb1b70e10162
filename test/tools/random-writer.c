/*
 * Changes block devices in every way there is.
 *
 *   random-writer mix --seed N --operations N [--kinds LETTERS] DEVICE...
 *       one after the other, each on a random device at a random sector: d O_DIRECT write,
 *       b buffered write, m mmap and msync, t discard, z BLKZEROOUT, p punch hole, r zero range;
 *       sync at the end
 *   random-writer sweep --seed N DEVICE
 *       every block once, in random order, 64 at a time, with content that names seed and block
 *   random-writer once KIND OFFSET LENGTH DEVICE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SECTOR 512
#define BLOCK 4096
#define PAGE 4096
#define LONGEST (4 << 20)
#define DEPTH 64

static uint64_t state;

static void die(const char *what) {
  fprintf(stderr, "random-writer: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545f4914f6cdd1dULL;
}

static uint64_t below(uint64_t limit) { return (next_random() >> 11) % limit; }

struct device {
  const char *path;
  int direct, buffered;
  uint64_t size;
};

static struct device open_device(const char *path) {
  struct device device = {path, open(path, O_RDWR | O_DIRECT), open(path, O_RDWR), 0};
  if (device.direct < 0 || device.buffered < 0) die(path);
  if (ioctl(device.buffered, BLKGETSIZE64, &device.size)) die(path);
  return device;
}

static unsigned char *payload(uint64_t length) {
  static unsigned char *buffer;
  if (!buffer && posix_memalign((void **)&buffer, PAGE, LONGEST)) die("memory");
  for (uint64_t i = 0; i < length; i += 8) {
    const uint64_t word = next_random();
    memcpy(buffer + i, &word, 8);
  }
  return buffer;
}

static void write_mapped(const struct device *device, uint64_t offset, uint64_t length) {
  const uint64_t begin = offset / PAGE * PAGE;
  unsigned char *memory = mmap(NULL, offset + length - begin, PROT_READ | PROT_WRITE, MAP_SHARED,
                               device->buffered, (off_t)begin);
  if (memory == MAP_FAILED) die("mmap");
  memcpy(memory + (offset - begin), payload(length), length);
  if (msync(memory, offset + length - begin, MS_SYNC)) die("msync");
  munmap(memory, offset + length - begin);
}

static int write_at(int fd, uint64_t offset, uint64_t length) {
  return pwrite(fd, payload(length), length, (off_t)offset) != (ssize_t)length;
}

static int allocate(const struct device *device, int mode, uint64_t offset, uint64_t length) {
  mode |= FALLOC_FL_KEEP_SIZE;
  /* Once a loop device's file system has refused to zero a range, the kernel refuses by itself. */
  return fallocate(device->buffered, mode, (off_t)offset, (off_t)length) && errno != EOPNOTSUPP;
}

static void change(const struct device *device, char kind, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  int failed = 0;
  switch (kind) {
    case 'd': failed = write_at(device->direct, offset, length); break;
    case 'b': failed = write_at(device->buffered, offset, length); break;
    case 'm': write_mapped(device, offset, length); break;
    case 't': failed = ioctl(device->buffered, BLKDISCARD, range); break;
    case 'z': failed = ioctl(device->buffered, BLKZEROOUT, range); break;
    case 'p': failed = allocate(device, FALLOC_FL_PUNCH_HOLE, offset, length); break;
    case 'r': failed = allocate(device, FALLOC_FL_ZERO_RANGE, offset, length); break;
    default: errno = EINVAL; failed = 1;
  }
  if (failed) die((char[]){kind, 0});
}

static uint64_t random_length(char kind) {
  const uint64_t dice = below(100);
  if (strchr("tzpr", kind) && dice < 20) return (1 + below(16384)) * SECTOR;
  if (dice < 60) return (1 + below(8)) * SECTOR;
  if (dice < 90) return (1 + below(128)) * SECTOR;
  return (1 + below(LONGEST / SECTOR)) * SECTOR;
}

static void mix(struct device *devices, int count, uint64_t operations, const char *kinds) {
  for (uint64_t i = 0; i < operations; i++) {
    const struct device *device = &devices[below((uint64_t)count)];
    const char kind = kinds[below(strlen(kinds))];
    uint64_t offset = below(device->size / SECTOR) * SECTOR, length = random_length(kind);
    if (length > device->size - offset) length = device->size - offset;
    change(device, kind, offset, length);
    if (kind == 'b' && below(4) == 0 && fdatasync(device->buffered)) die("fdatasync");
  }
  for (int i = 0; i < count; i++)
    if (fsync(devices[i].buffered)) die("fsync");
}

static void fill_sweep(unsigned char *buffer, uint64_t seed, uint64_t block) {
  for (int i = 0; i < BLOCK / 8; i++) {
    const uint64_t word = seed * 0x9e3779b97f4a7c15ULL + block * 1024 + (uint64_t)i;
    memcpy(buffer + i * 8, &word, 8);
  }
}

static uint64_t *shuffled(uint64_t blocks) {
  uint64_t *order = malloc(blocks * sizeof(*order));
  if (!order) die("memory");
  for (uint64_t i = 0; i < blocks; i++) order[i] = i;
  for (uint64_t i = blocks - 1; i > 0; i--) {
    const uint64_t j = below(i + 1), swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
  return order;
}

static void sweep(const struct device *device, uint64_t seed) {
  const uint64_t blocks = device->size / BLOCK;
  uint64_t *order = shuffled(blocks), issued = 0;
  unsigned char *buffers;
  unsigned idle[DEPTH], idle_count = DEPTH;
  struct io_uring ring;
  if (posix_memalign((void **)&buffers, PAGE, DEPTH * BLOCK)) die("memory");
  if (io_uring_queue_init(DEPTH, &ring, 0)) die("io_uring");
  for (unsigned i = 0; i < DEPTH; i++) idle[i] = i;
  while (issued < blocks || idle_count < DEPTH) {
    while (idle_count > 0 && issued < blocks) {
      const unsigned slot = idle[--idle_count];
      unsigned char *buffer = buffers + (size_t)slot * BLOCK;
      fill_sweep(buffer, seed, order[issued]);
      struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
      io_uring_prep_write(entry, device->direct, buffer, BLOCK, order[issued++] * BLOCK);
      io_uring_sqe_set_data64(entry, slot);
    }
    io_uring_submit_and_wait(&ring, 1);
    struct io_uring_cqe *done;
    while (!io_uring_peek_cqe(&ring, &done) && done) {
      if (done->res != BLOCK) die("write");
      idle[idle_count++] = (unsigned)done->user_data;
      io_uring_cqe_seen(&ring, done);
    }
  }
  free(order);
}

int main(int count, char **arguments) {
  uint64_t seed = 1, operations = 100;
  const char *command = count > 1 ? arguments[1] : "", *kinds = "dbmtzpr";
  if (!strcmp(command, "once") && count == 6) {
    state = 88172645463325252ULL;
    const struct device device = open_device(arguments[5]);
    const uint64_t offset = strtoull(arguments[3], NULL, 10);
    change(&device, arguments[2][0], offset, strtoull(arguments[4], NULL, 10));
    return fsync(device.buffered) ? 1 : 0;
  }
  int i = 2;
  for (; i + 1 < count && !strncmp(arguments[i], "--", 2); i += 2) {
    if (!strcmp(arguments[i], "--seed")) seed = strtoull(arguments[i + 1], NULL, 10);
    if (!strcmp(arguments[i], "--operations")) operations = strtoull(arguments[i + 1], NULL, 10);
    if (!strcmp(arguments[i], "--kinds")) kinds = arguments[i + 1];
  }
  state = seed * 0x9e3779b97f4a7c15ULL + 1;
  struct device devices[8];
  int opened = 0;
  for (; i < count && opened < 8; i++) devices[opened++] = open_device(arguments[i]);
  if (!opened) return 2;
  if (!strcmp(command, "mix")) mix(devices, opened, operations, kinds);
  else if (!strcmp(command, "sweep")) sweep(&devices[0], seed);
  else return 2;
  return 0;
}
