#include "engine/cutter.h"

#include <time.h>

#include <algorithm>
#include <chrono>

namespace understudy {

namespace {

// In a cut, long reads contest more than they carry; where nothing is validated they are cheaper.
constexpr uint64_t kLongestCutBytes = 128 * 1024;
constexpr uint64_t kLongestDrainBytes = 1024 * 1024;

double wallClockMs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// What one pass reads, found as it goes, so that a large set costs no memory; and the look at the
// marks as each read ends. `active`: the side of the planes on which contesting marks lie.
class PassSource : public ReadSource {
 public:
  PassSource(std::vector<std::unique_ptr<TrackedVolume>>& all, const std::vector<uint32_t>& job,
             int active, uint64_t longest_bytes, bool follows_flight)
      : all_(all),
        job_(job),
        active_(active),
        longest_bytes_(longest_bytes),
        follows_flight_(follows_flight),
        carried_(all.size()) {}

  uint64_t contested() const { return contested_; }
  uint64_t carried(uint32_t index) const { return carried_[index]; }

  bool next(ReadItem& item) override {
    for (; at_ < job_.size(); at_++, cursor_ = 0) {
      if (nextOf(job_[at_], item)) return true;
    }
    return false;
  }

  void landed(const ReadItem& item) override {
    TrackedVolume& volume = *all_[item.volume];
    const uint64_t first = item.offset / volume.blockBytes();
    const uint64_t last = (item.offset + item.length - 1) / volume.blockBytes();
    contested_ += volume.markedAtQueue(active_, first, last);
    if (!item.carried) volume.pending().removeRange(first, last);
  }

 private:
  // After the harvest, so a write that is in flight is seen in the counts.
  bool isCarried(TrackedVolume& volume, uint64_t block) const {
    return follows_flight_ && volume.flight().mayHold(block);
  }

  bool nextOf(uint32_t index, ReadItem& item) {
    TrackedVolume& volume = *all_[index];
    const uint64_t block_bytes = volume.blockBytes();
    const uint64_t size = volume.map().header(HEADER_SECTORS) * 512;
    uint64_t block = 0;
    if (!volume.pending().next(cursor_, block) || block * block_bytes >= size) return false;
    const uint64_t first = block;
    const bool carried = isCarried(volume, first);
    const uint64_t end = std::min(first + longest_bytes_ / block_bytes, volume.map().blocks());
    for (block++; block < end; block++) {
      if (!volume.pending().has(block) || isCarried(volume, block) != carried) break;
    }
    cursor_ = block;
    const uint64_t bytes = std::min(block * block_bytes, size) - first * block_bytes;
    item = ReadItem{index, static_cast<uint32_t>(bytes), first * block_bytes, carried};
    if (carried) carried_[index] += block - first;
    return true;
  }

  std::vector<std::unique_ptr<TrackedVolume>>& all_;
  const std::vector<uint32_t>& job_;
  const int active_;
  const uint64_t longest_bytes_;
  const bool follows_flight_;
  std::vector<uint64_t> carried_;
  size_t at_ = 0;
  uint64_t cursor_ = 0;
  uint64_t contested_ = 0;
};

}  // namespace

Cutter::Cutter(ControlMap& control, std::vector<std::unique_ptr<TrackedVolume>>& volumes,
               BufferPool& pool, Reader& reader, CutterRules rules)
    : control_(control), volumes_(volumes), pool_(pool), reader_(reader), rules_(rules) {}

void Cutter::flip(const std::vector<uint32_t>& volumes, JobResult& result) {
  const Word epoch = control_.epoch();
  const int before = static_cast<int>(epoch % 2);
  for (auto& volume : volumes_) {
    volume->flight().beginHarvest(std::chrono::steady_clock::now());
    volume->harvestSide(1 - before, rules_.follows_flight);
  }
  result.time_ms = wallClockMs();
  control_.setEpoch(epoch + 1);
  for (auto& volume : volumes_) {
    volume->noteFlip();
    volume->harvestSide(before, rules_.follows_flight);
  }
  result.last_blocks = 0;
  for (const uint32_t index : volumes) result.last_blocks += volumes_[index]->pending().count();
  if (result.passes++ == 0) result.first_blocks = result.last_blocks;
}

bool Cutter::pass(const std::vector<uint32_t>& volumes, uint64_t longest_bytes, bool hold_back,
                  JobResult& result, std::vector<ReadFault>& faults) {
  flip(volumes, result);
  const int active = static_cast<int>(control_.epoch() % 2);
  PassSource source(volumes_, volumes, active, longest_bytes, rules_.follows_flight);
  const bool is_whole = reader_.run(source, hold_back, faults);
  result.contested_blocks = source.contested();
  result.carried_blocks = 0;
  for (const uint32_t index : volumes) {
    result.carried_blocks += source.carried(index);
    volumes_[index]->publishCarried(source.carried(index));
  }
  for (auto& volume : volumes_) volume->publish();
  return is_whole;
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

void Cutter::drain(const std::vector<uint32_t>& volumes, JobResult& result,
                   std::vector<ReadFault>& faults) {
  if (!pass(volumes, kLongestDrainBytes, false, result, faults)) return;
  pool_.handOverAll();
  result.outcome = Outcome::Drained;
}

void Cutter::cut(const std::vector<uint32_t>& volumes, double deadline_ms, JobResult& result,
                 std::vector<ReadFault>& faults) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    if (!pass(volumes, kLongestCutBytes, true, result, faults)) return;
    const bool is_valid = result.contested_blocks == 0 || !rules_.validates;
    const Milliseconds spent = std::chrono::steady_clock::now() - begin;
    if (!is_valid && spent.count() < deadline_ms) continue;
    // Whoever is told of the cut asks then for taints: those of the time until now must be there.
    for (const uint32_t index : volumes) volumes_[index]->pollTripwire();
    result.outcome = is_valid ? Outcome::Valid : Outcome::Deadline;
    if (result.passes > 1) dropSuperseded();
    pool_.handOverAll();
    return;
  }
}

}  // namespace understudy
