#include "engine/buffer_pool.h"

#include <algorithm>
#include <utility>

namespace understudy {

namespace {

// The order in which pieces lie is the order of the passes that read them.
void sortByPlace(std::vector<Piece>& pieces) {
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.at < b.at; });
}

// Sorted, neighbours joined.
std::vector<Piece> joined(std::vector<Piece>&& pieces) {
  sortByPlace(pieces);
  std::vector<Piece> result;
  for (const Piece& piece : pieces) {
    if (!result.empty()) {
      Piece& last = result.back();
      if (last.volume == piece.volume && last.offset + last.length == piece.offset &&
          last.at + last.length == piece.at) {
        last.length += piece.length;
        continue;
      }
    }
    result.push_back(piece);
  }
  return result;
}

}  // namespace

BufferPool::BufferPool(const std::vector<Memory>& memory, HandOver hand_over)
    : hand_over_(std::move(hand_over)) {
  for (const Memory& each : memory) {
    free_.push_back(static_cast<uint32_t>(buffers_.size()));
    buffers_.push_back(Buffer{each});
  }
}

std::vector<iovec> BufferPool::memory() const {
  std::vector<iovec> result;
  for (const Buffer& buffer : buffers_) result.push_back({buffer.memory.data, buffer.memory.size});
  return result;
}

uint8_t* BufferPool::reserve(uint32_t length, uint32_t& buffer, uint32_t& at) {
  if (current_ < 0) return nullptr;
  Buffer& target = buffers_[current_];
  const size_t room = (length + kAlignment - 1) / kAlignment * kAlignment;
  if (target.used + room > target.memory.size) return nullptr;
  buffer = static_cast<uint32_t>(current_);
  at = static_cast<uint32_t>(target.used);
  target.used += room;
  target.in_flight++;
  return target.memory.data + at;
}

void BufferPool::landed(uint32_t buffer, const Piece& piece) {
  buffers_[buffer].in_flight--;
  buffers_[buffer].pieces.push_back(piece);
}

void BufferPool::failed(uint32_t buffer) { buffers_[buffer].in_flight--; }

bool BufferPool::openNext() {
  if (current_ >= 0) filled_.push_back(static_cast<uint32_t>(current_));
  current_ = -1;
  collectReleased();
  if (free_.empty()) return false;
  current_ = static_cast<int>(free_.front());
  free_.pop_front();
  return true;
}

void BufferPool::handOver(uint32_t buffer) {
  Buffer& source = buffers_[buffer];
  std::vector<Piece> pieces = joined(std::move(source.pieces));
  source.pieces = {};
  source.used = 0;
  if (pieces.empty()) {
    free_.push_back(buffer);
    return;
  }
  source.handed_over = true;
  hand_over_(buffer, std::move(pieces));
}

bool BufferPool::handOverOldest() {
  if (filled_.empty() || buffers_[filled_.front()].in_flight > 0) return false;
  const uint32_t oldest = filled_.front();
  filled_.pop_front();
  handOver(oldest);
  return true;
}

void BufferPool::handOverFilled() {
  while (handOverOldest()) continue;
}

void BufferPool::handOverAll() {
  if (current_ >= 0) filled_.push_back(static_cast<uint32_t>(current_));
  current_ = -1;
  handOverFilled();
}

void BufferPool::discard() {
  if (current_ >= 0) filled_.push_back(static_cast<uint32_t>(current_));
  current_ = -1;
  for (const uint32_t buffer : filled_) {
    buffers_[buffer].pieces.clear();
    buffers_[buffer].used = 0;
    free_.push_back(buffer);
  }
  filled_.clear();
}

void BufferPool::reduce(const std::function<void(const Piece&, std::vector<Piece>&)>& keep) {
  const auto reduceOne = [&](Buffer& buffer) {
    sortByPlace(buffer.pieces);
    std::vector<Piece> kept;
    kept.reserve(buffer.pieces.size());
    for (auto piece = buffer.pieces.rbegin(); piece != buffer.pieces.rend(); ++piece) {
      keep(*piece, kept);
    }
    buffer.pieces = std::move(kept);
  };
  if (current_ >= 0) reduceOne(buffers_[current_]);
  for (auto buffer = filled_.rbegin(); buffer != filled_.rend(); ++buffer) {
    reduceOne(buffers_[*buffer]);
  }
}

void BufferPool::release(uint32_t buffer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  released_.push_back(buffer);
}

void BufferPool::collectReleased() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const uint32_t buffer : released_) {
    if (buffer >= buffers_.size() || !buffers_[buffer].handed_over) continue;
    buffers_[buffer].handed_over = false;
    free_.push_back(buffer);
  }
  released_.clear();
}

}  // namespace understudy
