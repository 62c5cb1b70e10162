#include "engine/cutter.h"

#include <time.h>

#include <algorithm>
#include <chrono>

namespace understudy {

namespace {

// Long reads contest more than they carry; measured on loop and virtio devices.
constexpr uint64_t kMaxItemBytes = 128 * 1024;

double wallClockMs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// The items of one pass, and the look at the marks as each of them ends.
class PassSource : public ReadSource {
 public:
  PassSource(const std::vector<ReadItem>& items,
             std::vector<std::unique_ptr<TrackedVolume>>& volumes, int active)
      : items_(items), volumes_(volumes), active_(active) {}

  uint64_t contested() const { return contested_; }

  bool next(ReadItem& item) override {
    if (index_ == items_.size()) return false;
    item = items_[index_++];
    return true;
  }

  void landed(const ReadItem& item) override {
    TrackedVolume& volume = *volumes_[item.volume];
    const uint64_t first = item.offset / volume.blockBytes();
    const uint64_t last = (item.offset + item.length - 1) / volume.blockBytes();
    contested_ += volume.markedAtQueue(active_, first, last);
    if (!item.carried) volume.pending().removeRange(first, last);
  }

 private:
  const std::vector<ReadItem>& items_;
  std::vector<std::unique_ptr<TrackedVolume>>& volumes_;
  const int active_;
  size_t index_ = 0;
  uint64_t contested_ = 0;
};

}  // namespace

Cutter::Cutter(ControlMap& control, std::vector<std::unique_ptr<TrackedVolume>>& volumes,
               BufferPool& pool, Reader& reader, CutterRules rules)
    : control_(control),
      volumes_(volumes),
      pool_(pool),
      reader_(reader),
      rules_(rules),
      carried_(volumes.size()) {}

std::vector<ReadItem> Cutter::flip(const std::vector<uint32_t>& volumes, JobResult& result) {
  const Word epoch = control_.epoch();
  const int before = static_cast<int>(epoch % 2);
  for (auto& volume : volumes_) {
    volume->flight().beginHarvest(std::chrono::steady_clock::now());
    volume->harvestSide(1 - before, rules_.follows_flight);
  }
  const double time_ms = wallClockMs();
  control_.setEpoch(epoch + 1);
  result.time_ms = time_ms;
  for (auto& volume : volumes_) {
    volume->noteFlip();
    volume->harvestSide(before, rules_.follows_flight);
  }
  std::vector<ReadItem> items;
  result.last_blocks = 0;
  result.carried_blocks = 0;
  for (const uint32_t index : volumes) addItems(index, items, result);
  if (result.passes++ == 0) result.first_blocks = result.last_blocks;
  return items;
}

void Cutter::addItems(uint32_t index, std::vector<ReadItem>& items, JobResult& result) {
  TrackedVolume& volume = *volumes_[index];
  const uint64_t size = volume.map().header(HEADER_SECTORS) * 512;
  const uint64_t block_bytes = volume.blockBytes();
  uint64_t blocks = 0;
  uint64_t carried_blocks = 0;
  volume.pending().forEach([&](size_t word, Word bits) {
    for (; bits != 0; bits &= bits - 1) {
      const uint64_t block = word * 64 + static_cast<uint64_t>(__builtin_ctzll(bits));
      const uint64_t offset = block * block_bytes;
      if (offset >= size) break;
      const bool carried = rules_.follows_flight && volume.flight().mayHold(block);
      const uint32_t length = static_cast<uint32_t>(std::min(block_bytes, size - offset));
      blocks++;
      carried_blocks += carried;
      ReadItem* last = items.empty() ? nullptr : &items.back();
      if (last && last->volume == index && last->carried == carried &&
          last->offset + last->length == offset && last->length + length <= kMaxItemBytes) {
        last->length += length;
      } else {
        items.push_back(ReadItem{index, length, offset, carried});
      }
    }
  });
  carried_[index] = carried_blocks;
  result.last_blocks += blocks;
  result.carried_blocks += carried_blocks;
}

// Of blocks that several passes read, only the newest reading stays. Done once, when no pass
// follows: between a flip and its reads every microsecond costs convergence.
void Cutter::dropSuperseded() {
  pool_.reduce([this](const Piece& piece, std::vector<Piece>& kept) {
    Pending& newer = volumes_[piece.volume]->scratch();
    const uint32_t block_bytes = volumes_[piece.volume]->blockBytes();
    bool joins = false;
    for (uint32_t done = 0; done < piece.length; done += block_bytes) {
      const uint32_t length = std::min(block_bytes, piece.length - done);
      const uint64_t offset = piece.offset + done;
      const uint64_t block = offset / block_bytes;
      const bool is_superseded = newer.has(block);
      if (!is_superseded) newer.addRange(block, block);
      if (!is_superseded && joins) {
        kept.back().length += length;
      } else if (!is_superseded) {
        kept.push_back(Piece{piece.volume, length, offset, piece.at + done});
      }
      joins = !is_superseded;
    }
  });
  for (auto& volume : volumes_) volume->scratch().clear();
}

void Cutter::publish(const std::vector<uint32_t>& volumes) {
  for (auto& volume : volumes_) volume->publish();
  for (const uint32_t index : volumes) volumes_[index]->publishCarried(carried_[index]);
}

void Cutter::drain(const std::vector<uint32_t>& volumes, JobResult& result,
                   std::vector<ReadFault>& faults) {
  const std::vector<ReadItem> items = flip(volumes, result);
  PassSource source(items, volumes_, static_cast<int>(control_.epoch() % 2));
  const bool is_whole = reader_.run(source, false, faults);
  publish(volumes);
  if (!is_whole) return;
  pool_.handOverAll();
  result.contested_blocks = source.contested();
  result.outcome = Outcome::Drained;
}

void Cutter::cut(const std::vector<uint32_t>& volumes, double deadline_ms, JobResult& result,
                 std::vector<ReadFault>& faults) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    const std::vector<ReadItem> items = flip(volumes, result);
    PassSource source(items, volumes_, static_cast<int>(control_.epoch() % 2));
    const bool is_whole = reader_.run(source, true, faults);
    publish(volumes);
    if (!is_whole) return;
    result.contested_blocks = source.contested();
    const bool is_valid = result.contested_blocks == 0 || !rules_.validates;
    const Milliseconds spent = std::chrono::steady_clock::now() - begin;
    if (!is_valid && spent.count() < deadline_ms) continue;
    result.outcome = is_valid ? Outcome::Valid : Outcome::Deadline;
    if (result.passes > 1) dropSuperseded();
    pool_.handOverAll();
    return;
  }
}

}  // namespace understudy
