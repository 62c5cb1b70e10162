// io_uring, reduced to what the engine does: many positioned reads in flight, results as they end.
// A read that ends short or is refused for its alignment is the reader's business.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace understudy {

class Ring {
 public:
  // Throws Failure ERR_ENGINE_START.
  explicit Ring(unsigned depth);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Registers memory and files, which makes every read cheaper. The kernel may refuse (locked
  // memory is limited): reads are then by address and descriptor.
  void registerMemory(const std::vector<iovec>& memory);
  void registerFiles(const std::vector<int>& fds);

  struct Place {
    size_t memory;  // index into the registered memory
    uint8_t* data;
    size_t file;  // index into the registered files
    int fd;
  };
  // Queues a read; `tag` comes back with its result. At most `depth` may be in flight.
  void read(const Place& place, uint32_t length, uint64_t offset, uint64_t tag);
  // Submits what is queued; with `wait`, returns after at least one result is there.
  void submit(bool wait);
  // Takes one result: bytes read, or -errno. False when there is none.
  bool next(uint64_t& tag, int& result);

 private:
  io_uring ring_;
  bool has_memory_ = false;
  bool has_files_ = false;
};

}  // namespace understudy
