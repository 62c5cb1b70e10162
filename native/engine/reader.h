// Reads what a source asks for, many reads in flight, into the buffer pool; tells the source as
// each read ends, at once, because the cutter looks at the marks at that moment. A read that fails
// becomes a fault; it is never retried here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/buffer_pool.h"
#include "engine/device.h"
#include "engine/ring.h"

namespace understudy {

struct ReadItem {
  uint32_t volume;
  uint32_t length;
  uint64_t offset;
  // A write on it may still be in flight: it stays pending although it is read now.
  bool carried;
};

struct ReadFault {
  uint32_t volume;
  uint32_t length;
  uint64_t offset;
  int error;
};

class ReadSource {
 public:
  virtual ~ReadSource() = default;
  // The next item, or false when there is none left.
  virtual bool next(ReadItem& item) = 0;
  virtual void landed(const ReadItem&) {}
};

class Reader {
 public:
  struct Hooks {
    // Waits until a buffer has been released or the engine is being closed; false: give up.
    std::function<bool()> waitForRelease;
    std::function<bool()> isStopping;
  };

  Reader(const std::vector<std::shared_ptr<Device>>& devices, BufferPool& pool, unsigned depth,
         Hooks hooks);

  // To be called when one of `devices` has been opened anew.
  void useDevices();
  // Reads all of `source`. `hold_back`: keep filled buffers until none is free. False when stopped.
  bool run(ReadSource& source, bool hold_back, std::vector<ReadFault>& faults);

 private:
  struct Slot {
    ReadItem item;
    uint32_t buffer;
    uint32_t at;
    uint8_t* data;
  };
  enum class Submit { Ok, Exhausted, NoBuffer };

  Submit submitSome(ReadSource& source, bool hold_back);
  bool findBuffer(bool hold_back);
  void submitOne(const ReadItem& item, uint8_t* data, uint32_t buffer, uint32_t at);
  void reap(ReadSource& source, std::vector<ReadFault>& faults);
  // 0, or the errno of the read in `slot` that returned `result`.
  int finish(const Slot& slot, int result);

  const std::vector<std::shared_ptr<Device>>& devices_;
  BufferPool& pool_;
  Hooks hooks_;
  Ring ring_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> idle_;
  bool has_next_ = false;
  ReadItem next_{};
};

}  // namespace understudy
