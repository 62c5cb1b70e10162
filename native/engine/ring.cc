#include "engine/ring.h"

#include <cerrno>
#include <cstring>

#include "engine/failure.h"

// Linux 6.0 and 6.1; older kernels refuse them, see the constructor.
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

namespace understudy {

Ring::Ring(unsigned depth) {
  io_uring_params params;
  memset(&params, 0, sizeof(params));
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int result = io_uring_queue_init_params(depth, &ring_, &params);
  if (result == -EINVAL) {
    memset(&params, 0, sizeof(params));
    result = io_uring_queue_init_params(depth, &ring_, &params);
  }
  if (result < 0) throw Failure("ERR_ENGINE_START", "io_uring_setup", -result);
}

Ring::~Ring() { io_uring_queue_exit(&ring_); }

void Ring::registerMemory(const std::vector<iovec>& memory) {
  has_memory_ = io_uring_register_buffers(&ring_, memory.data(),
                                          static_cast<unsigned>(memory.size())) == 0;
}

void Ring::registerFiles(const std::vector<int>& fds) {
  if (has_files_) io_uring_unregister_files(&ring_);
  has_files_ = io_uring_register_files(&ring_, fds.data(), static_cast<unsigned>(fds.size())) == 0;
}

void Ring::read(const Place& place, uint32_t length, uint64_t offset, uint64_t tag) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (!entry) {
    submit(false);
    entry = io_uring_get_sqe(&ring_);
  }
  const int fd = has_files_ ? static_cast<int>(place.file) : place.fd;
  if (has_memory_) {
    io_uring_prep_read_fixed(entry, fd, place.data, length, offset, static_cast<int>(place.memory));
  } else {
    io_uring_prep_read(entry, fd, place.data, length, offset);
  }
  if (has_files_) io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(entry, tag);
}

void Ring::submit(bool wait) {
  int result;
  do {
    result = wait ? io_uring_submit_and_wait(&ring_, 1) : io_uring_submit(&ring_);
  } while (result == -EINTR || result == -EAGAIN);
  if (result < 0) throw Failure("ERR_ENGINE_READ", "io_uring_enter", -result);
}

bool Ring::next(uint64_t& tag, int& result) {
  io_uring_cqe* entry = nullptr;
  if (io_uring_peek_cqe(&ring_, &entry) != 0 || !entry) return false;
  tag = io_uring_cqe_get_data64(entry);
  result = entry->res;
  io_uring_cqe_seen(&ring_, entry);
  return true;
}

}  // namespace understudy
