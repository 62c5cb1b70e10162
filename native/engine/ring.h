// io_uring, reduced to what the engine does: many positioned reads in flight, results as they end.
// A read that ends short or is refused for its alignment is the reader's business.
#pragma once

#include <liburing.h>

#include <cstdint>

namespace understudy {

class Ring {
 public:
  // Throws Failure ERR_ENGINE_START.
  explicit Ring(unsigned depth);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Queues a read; `tag` comes back with its result. At most `depth` may be in flight.
  void read(int fd, uint8_t* buffer, uint32_t length, uint64_t offset, uint64_t tag);
  // Submits what is queued; with `wait`, returns after at least one result is there.
  void submit(bool wait);
  // Takes one result: bytes read, or -errno. False when there is none.
  bool next(uint64_t& tag, int& result);

 private:
  io_uring ring_;
};

}  // namespace understudy
