#include "engine/tracked_volume.h"

#include <algorithm>
#include <utility>

namespace understudy {

namespace {

uint64_t countBits(Word bits) { return static_cast<uint64_t>(__builtin_popcountll(bits)); }

}  // namespace

TrackedVolume::TrackedVolume(std::shared_ptr<Device> device, const std::string& folder,
                             const ControlMap& control)
    : device_(std::move(device)),
      map_(folder, control),
      pending_(map_.outstanding().words * 64),
      scratch_(map_.outstanding().words * 64),
      flight_(map_.flight(), static_cast<uint32_t>(map_.header(HEADER_SHIFT)),
              std::chrono::steady_clock::now()),
      tripwire_(*device_, map_, flight_),
      block_bytes_(map_.blockBytes()) {
  takeOver();
  publish();
  noteFlip();
}

void TrackedVolume::addHarvested(size_t word, Word bits, Word fresh) {
  pending_.add(word, bits);
  outstanding_count_ += countBits(fresh);
}

void TrackedVolume::takeOver() {
  const Plane& outstanding = map_.outstanding();
  for (size_t word = 0; word < outstanding.words; word++) {
    const Word bits = loadWord(outstanding.leaf + word);
    if (bits == 0) continue;
    setBits(access_, outstanding, word, bits);
    addHarvested(word, bits, bits);
  }
  const auto take = [this](size_t word, Word bits, Word fresh) { addHarvested(word, bits, fresh); };
  for (int side = 0; side < 2; side++) {
    harvestAll(access_, map_.queued(side), outstanding, take);
    harvestAll(access_, map_.completed(side), outstanding, take);
  }
}

void TrackedVolume::harvestSide(int side, bool completions) {
  const auto take = [this](size_t word, Word bits, Word fresh) { addHarvested(word, bits, fresh); };
  harvest(access_, map_.queued(side), map_.outstanding(), [&](size_t word, Word bits, Word fresh) {
    flight_.touch(word, bits);
    take(word, bits, fresh);
  });
  if (completions) harvest(access_, map_.completed(side), map_.outstanding(), take);
}

uint64_t TrackedVolume::markedAtQueue(int side, uint64_t first, uint64_t last) const {
  const Plane& plane = map_.queued(side);
  uint64_t marked = 0;
  for (size_t word = first / 64; word <= last / 64; word++) {
    marked += countBits(loadWord(plane.leaf + word) & bitsWithin(word, first, last));
  }
  return marked;
}

void TrackedVolume::pend(uint64_t offset, uint64_t length) {
  const uint64_t end = std::min(offset + length, map_.header(HEADER_SECTORS) * 512);
  if (offset >= end) return;
  const uint64_t first = offset / block_bytes_;
  const uint64_t last = (end - 1) / block_bytes_;
  for (size_t word = first / 64; word <= last / 64; word++) {
    const Word bits = bitsWithin(word, first, last);
    addHarvested(word, bits, setBits(access_, map_.outstanding(), word, bits));
  }
}

void TrackedVolume::pendOutstanding() {
  const Plane& outstanding = map_.outstanding();
  for (size_t index = 0; index < Plane::summaryWords(outstanding.words); index++) {
    const Word lines = loadWord(outstanding.summary + index);
    forEachWordOf(index, lines, outstanding.words, [&](size_t word) {
      const Word bits = loadWord(outstanding.leaf + word);
      if (bits != 0) pending_.add(word, bits);
    });
  }
}

void TrackedVolume::committed(uint64_t epoch) {
  map_.setHeader(HEADER_COMMITTED_EPOCH, epoch);
  map_.setHeader(HEADER_SYNCED, 1);
  const Plane& outstanding = map_.outstanding();
  for (size_t index = 0; index < Plane::summaryWords(outstanding.words); index++) {
    const Word lines = loadWord(outstanding.summary + index);
    Word empty = lines;
    forEachWordOf(index, lines, outstanding.words, [&](size_t word) {
      const Word kept = pending_.word(word);
      const Word before = loadWord(outstanding.leaf + word);
      if ((before & ~kept) != 0) access_.fetchAnd(outstanding.leaf + word, kept);
      outstanding_count_ -= countBits(before & ~kept);
      if ((before & kept) != 0) empty &= ~(Word{1} << (word / LINE_WORDS % 64));
    });
    if (empty != 0) access_.fetchAnd(outstanding.summary + index, ~empty);
  }
}

void TrackedVolume::publish() {
  published_.pending = pending_.count();
  published_.outstanding = outstanding_count_;
}

uint64_t TrackedVolume::queuedSectors() const {
  if (device_->geometry().kind != DeviceKind::Disk) return map_.header(COUNT_VOLUME_QUEUED);
  const Word abandoned = map_.header(COUNT_DISK_ABANDONED);
  return map_.header(COUNT_DISK_QUEUED) - abandoned;
}

uint64_t TrackedVolume::completedSectors() const {
  const bool is_disk = device_->geometry().kind == DeviceKind::Disk;
  return map_.header(is_disk ? COUNT_DISK_COMPLETED : COUNT_VOLUME_COMPLETED);
}

void TrackedVolume::noteFlip() { published_.queued_at_flip = queuedSectors(); }

void TrackedVolume::pollTripwire() {
  flight_.sweepByAge(std::chrono::steady_clock::now());
  tripwire_.poll();
  published_.missed_sectors = tripwire_.missedSectors();
  published_.recursion_misses = tripwire_.recursionMisses();
  published_.stat_alive = tripwire_.isStatAlive();
}

}  // namespace understudy
