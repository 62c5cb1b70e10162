// Sectors in flight by hash of their place, as the programs count them. Exactly additive under
// splits and merges, so a count is zero when nothing is in flight, unless the programs missed a
// completion: then it is stuck above zero, which costs readings and loses nothing, until it is
// taken off. That is sound in two cases:
//
//   at rest     everything queued has completed by the block layer's own count: all that is left is
//               stuck
//   by age      no block of the bucket was marked at queue for kStuckAfter, and the count stood
//               still while two harvests went by: no write of that time is in it, and none lasts
//               that long
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/planes.h"

namespace understudy {

class Flight {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::minutes kStuckAfter{10};
  static constexpr std::chrono::seconds kSweepInterval{60};

  // `buckets`: FLIGHT_DATA_WORDS, then FLIGHT_REGION_WORDS. What was touched before `now` is not
  // known.
  Flight(Word* buckets, uint32_t block_shift, Time now);

  // After a harvest: may a write on this block have been issued and not completed?
  bool mayHold(uint64_t block);
  // These blocks of leaf word `word` were found marked at queue.
  void touch(size_t word, Word bits);
  // A harvest of all planes has begun; touches from here on are of `now`.
  void beginHarvest(Time now);
  // Takes off what is stuck by age; works once in kSweepInterval.
  void sweepByAge(Time now);
  // Takes off all that is there, if `isStillAtRest` says so after it has been looked at.
  void takeOffAll(const std::function<bool()>& isStillAtRest);

 private:
  static constexpr size_t kBuckets = FLIGHT_DATA_WORDS + FLIGHT_REGION_WORDS;

  size_t regionBucket(uint64_t block) const;
  uint32_t secondsAt(Time now) const;

  Word* buckets_;
  const uint32_t block_shift_;
  const Time origin_;
  Time swept_at_;
  uint32_t harvest_seconds_ = 0;
  uint64_t harvests_ = 0;
  uint64_t swept_harvests_ = 0;
  std::vector<uint32_t> touched_seconds_;
  // Counts at the last sweep of buckets that were untouched for long; 0 for all others.
  std::vector<Word> candidates_;
};

}  // namespace understudy
