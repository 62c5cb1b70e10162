// The caller's buffers and what lies in them. A buffer is free, being filled, filled, or handed
// over; buffers are handed over in the order in which they were opened, because later bytes
// override earlier ones. Belongs to the engine thread; only `release` may be called from another.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

namespace understudy {

constexpr uint64_t kAlignment = 4096;

// Bytes [offset, offset + length) of a volume, lying at `at` in a buffer.
struct Piece {
  uint32_t volume;
  uint32_t length;
  uint64_t offset;
  uint32_t at;
};

struct Memory {
  uint8_t* data;
  size_t size;
};

class BufferPool {
 public:
  using HandOver = std::function<void(uint32_t buffer, std::vector<Piece>&& pieces)>;

  BufferPool(const std::vector<Memory>& memory, HandOver hand_over);

  // All buffers, as the kernel wants them.
  std::vector<iovec> memory() const;
  // Where the next `length` bytes go, or nullptr when the buffer being filled has no room (or there
  // is none). The place stays in flight until `landed` or `failed`.
  uint8_t* reserve(uint32_t length, uint32_t& buffer, uint32_t& at);
  void landed(uint32_t buffer, const Piece& piece);
  void failed(uint32_t buffer);

  // Ends the buffer being filled and begins with a free one; false when none is free.
  bool openNext();
  // Hands over the oldest filled buffer if all its reads have ended; false when there is no such
  // buffer.
  bool handOverOldest();
  // Hands over, in order, every filled buffer whose reads have ended.
  void handOverFilled();
  // Ends the buffer being filled and hands over everything; all reads must have ended.
  void handOverAll();
  // Forgets everything that has been filled and not handed over.
  void discard();
  // Replaces each piece of what is held back, from the newest to the oldest, by what `keep` puts
  // out for it.
  void reduce(const std::function<void(const Piece&, std::vector<Piece>&)>& keep);

  // From any thread: the buffer may be filled again.
  void release(uint32_t buffer);

 private:
  struct Buffer {
    Memory memory;
    size_t used = 0;
    unsigned in_flight = 0;
    bool handed_over = false;
    std::vector<Piece> pieces;
  };

  void collectReleased();
  void handOver(uint32_t buffer);

  std::vector<Buffer> buffers_;
  std::deque<uint32_t> free_;
  std::deque<uint32_t> filled_;
  int current_ = -1;
  HandOver hand_over_;
  std::mutex mutex_;
  std::vector<uint32_t> released_;
};

}  // namespace understudy
