/*
 * The few kernel structs that the programs read, with only the fields that they need: CO-RE finds
 * the real offsets in the running kernel's BTF, so a whole vmlinux.h is not needed.
 */
#ifndef UNDERSTUDY_KERNEL_TYPES_H
#define UNDERSTUDY_KERNEL_TYPES_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;

enum bpf_map_type { BPF_MAP_TYPE_ARRAY = 2 };
enum { BPF_F_MMAPABLE = 1024 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct gendisk {
  int major;
  int first_minor;
};

struct block_device {
  struct gendisk *bd_disk;
};

struct bvec_iter {
  __u64 bi_sector;
  __u32 bi_size;
};

struct bio {
  struct bio *bi_next;
  struct block_device *bi_bdev;
  __u32 bi_opf;
  struct bvec_iter bi_iter;
};

struct request_queue {
  struct gendisk *disk;
};

struct request {
  struct request_queue *q;
  __u32 cmd_flags;
  __u32 __data_len;
  __u64 __sector;
  struct bio *bio;
};

#pragma clang attribute pop

/* enum req_op; the numbers of these have not changed since Linux 4.10. */
enum operation {
  OPERATION_WRITE = 1,
  OPERATION_DISCARD = 3,
  OPERATION_SECURE_ERASE = 5,
  OPERATION_WRITE_ZEROES = 9,
  OPERATION_PASSTHROUGH_OUT = 35,
};
#define OPERATION_MASK 0xff

#endif
