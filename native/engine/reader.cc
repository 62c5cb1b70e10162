#include "engine/reader.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/failure.h"

namespace understudy {

Reader::Reader(const std::vector<std::shared_ptr<Device>>& devices, BufferPool& pool,
               unsigned depth, Hooks hooks)
    : devices_(devices), pool_(pool), hooks_(std::move(hooks)), ring_(depth), slots_(depth) {
  for (uint32_t slot = 0; slot < depth; slot++) idle_.push_back(slot);
  ring_.registerMemory(pool.memory());
  useDevices();
}

void Reader::useDevices() {
  std::vector<int> fds;
  for (const auto& device : devices_) fds.push_back(device->fd());
  ring_.registerFiles(fds);
}

bool Reader::run(ReadSource& source, bool hold_back, std::vector<ReadFault>& faults) {
  has_next_ = false;
  for (;;) {
    const bool stopping = hooks_.isStopping();
    const Submit outcome = stopping ? Submit::Exhausted : submitSome(source, hold_back);
    if (idle_.size() < slots_.size()) {
      ring_.submit(true);
      reap(source, faults);
    } else if (outcome == Submit::Exhausted) {
      return !stopping;
    } else if (outcome == Submit::NoBuffer && !hooks_.waitForRelease()) {
      return false;
    }
    if (!hold_back) pool_.handOverFilled();
  }
}

Reader::Submit Reader::submitSome(ReadSource& source, bool hold_back) {
  while (!idle_.empty()) {
    if (!has_next_ && !source.next(next_)) return Submit::Exhausted;
    has_next_ = true;
    uint32_t buffer = 0;
    uint32_t at = 0;
    uint8_t* data = pool_.reserve(next_.length, buffer, at);
    if (!data) {
      if (!findBuffer(hold_back)) return Submit::NoBuffer;
      continue;
    }
    has_next_ = false;
    submitOne(next_, data, buffer, at);
  }
  return Submit::Ok;
}

bool Reader::findBuffer(bool hold_back) {
  if (pool_.openNext()) return true;
  if (!hold_back) pool_.handOverFilled();
  // A cut that outgrows the buffers gives up its oldest ones: later reads override them.
  if (hold_back) pool_.handOverOldest();
  return pool_.openNext();
}

void Reader::submitOne(const ReadItem& item, uint8_t* data, uint32_t buffer, uint32_t at) {
  const uint32_t slot = idle_.back();
  idle_.pop_back();
  slots_[slot] = Slot{item, buffer, at, data};
  const Device& device = *devices_[item.volume];
  uint32_t length = item.length;
  // The place is a multiple of the alignment, so the odd tail of a file can be read by a whole
  // sector.
  if (device.isFile()) length = (length + kAlignment - 1) / kAlignment * kAlignment;
  ring_.read({buffer, data, item.volume, device.fd()}, length, item.offset, slot);
}

void Reader::reap(ReadSource& source, std::vector<ReadFault>& faults) {
  uint64_t tag;
  int result;
  while (ring_.next(tag, result)) {
    const Slot slot = slots_[tag];
    idle_.push_back(static_cast<uint32_t>(tag));
    const ReadItem& item = slot.item;
    const int error = finish(slot, result);
    if (error != 0) {
      pool_.failed(slot.buffer);
      faults.push_back(ReadFault{item.volume, item.length, item.offset, error});
      continue;
    }
    source.landed(item);
    pool_.landed(slot.buffer, Piece{item.volume, item.length, item.offset, slot.at});
  }
}

int Reader::finish(const Slot& slot, int result) {
  const Device& device = *devices_[slot.item.volume];
  // A file system that refuses O_DIRECT only when reading is read on the spot, the first time.
  if (result == -EINVAL && device.isFile()) result = 0;
  if (result < 0) return -result;
  const uint32_t length = slot.item.length;
  const uint32_t done = static_cast<uint32_t>(result);
  if (done >= length) return 0;
  // A short read is the kernel's right: the rest is read on the spot.
  const uint32_t whole = static_cast<uint32_t>(done / kAlignment * kAlignment);
  const size_t capacity = (length + kAlignment - 1) / kAlignment * kAlignment - whole;
  try {
    const size_t rest =
        device.read(slot.data + whole, length - whole, capacity, slot.item.offset + whole);
    return whole + rest == length ? 0 : ENODATA;
  } catch (const Failure& failure) {
    return failure.error;
  }
}

}  // namespace understudy
