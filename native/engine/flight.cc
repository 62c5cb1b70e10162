#include "engine/flight.h"

#include <utility>

namespace understudy {

namespace {

void takeOff(Word* bucket, Word sectors) { __atomic_fetch_sub(bucket, sectors, __ATOMIC_SEQ_CST); }

}  // namespace

Flight::Flight(Word* buckets, uint32_t block_shift, Time now)
    : buckets_(buckets),
      block_shift_(block_shift),
      origin_(now),
      swept_at_(now),
      touched_seconds_(kBuckets, 0),
      candidates_(kBuckets, 0) {}

size_t Flight::regionBucket(uint64_t block) const {
  return FLIGHT_DATA_WORDS + (block << block_shift_ >> REGION_SHIFT) % FLIGHT_REGION_WORDS;
}

uint32_t Flight::secondsAt(Time now) const {
  const auto since = std::chrono::duration_cast<std::chrono::seconds>(now - origin_);
  return static_cast<uint32_t>(since.count());
}

bool Flight::mayHold(uint64_t block) {
  bool result = false;
  const size_t buckets[] = {block % FLIGHT_DATA_WORDS, regionBucket(block)};
  for (const size_t bucket : buckets) {
    const int64_t sectors = static_cast<int64_t>(loadWord(buckets_ + bucket));
    if (sectors == 0) continue;
    result = true;
    // Below zero: writes queued before the programs came have completed. What is in flight is never
    // below zero, so what is added here can at most be too little.
    if (sectors < 0) takeOff(buckets_ + bucket, static_cast<Word>(sectors));
  }
  return result;
}

void Flight::touch(size_t word, Word bits) {
  for (; bits != 0; bits &= bits - 1) {
    const uint64_t block = word * 64 + static_cast<uint64_t>(__builtin_ctzll(bits));
    touched_seconds_[block % FLIGHT_DATA_WORDS] = harvest_seconds_;
    touched_seconds_[regionBucket(block)] = harvest_seconds_;
  }
}

void Flight::beginHarvest(Time now) {
  harvest_seconds_ = secondsAt(now);
  harvests_++;
}

void Flight::sweepByAge(Time now) {
  // Two harvests, because a mark may have slipped into a plane after the first had passed it.
  if (now - swept_at_ < kSweepInterval || harvests_ < swept_harvests_ + 2) return;
  swept_at_ = now;
  swept_harvests_ = harvests_;
  const uint32_t seconds = secondsAt(now);
  const uint32_t age = std::chrono::duration_cast<std::chrono::seconds>(kStuckAfter).count();
  for (size_t bucket = 0; bucket < kBuckets; bucket++) {
    const Word sectors = loadWord(buckets_ + bucket);
    const bool is_old = sectors != 0 && seconds - touched_seconds_[bucket] > age;
    if (is_old && candidates_[bucket] == sectors) {
      takeOff(buckets_ + bucket, sectors);
      candidates_[bucket] = 0;
    } else {
      candidates_[bucket] = is_old ? sectors : 0;
    }
  }
}

void Flight::takeOffAll(const std::function<bool()>& isStillAtRest) {
  std::vector<std::pair<size_t, Word>> stuck;
  for (size_t bucket = 0; bucket < kBuckets; bucket++) {
    const Word sectors = loadWord(buckets_ + bucket);
    if (sectors != 0) stuck.emplace_back(bucket, sectors);
  }
  if (!isStillAtRest()) return;
  for (const auto& [bucket, sectors] : stuck) takeOff(buckets_ + bucket, sectors);
}

}  // namespace understudy
