#include "engine/tripwire.h"

#include <cinttypes>
#include <cstdio>

#include "engine/failure.h"

namespace understudy {

Tripwire::Tripwire(const Device& device, VolumeMap& map, Flight& flight)
    : device_(device), map_(map), flight_(flight) {
  sysfs_ = "/sys/dev/block/" + std::to_string(map.header(HEADER_DISK_MAJOR)) + ":" +
           std::to_string(map.header(HEADER_DISK_MINOR));
}

void Tripwire::poll() {
  pollDevice();
  pollPrograms();
  pollCounts();
}

void Tripwire::pollDevice() {
  try {
    if (device_.currentSize() != map_.header(HEADER_SECTORS) * 512) map_.taint(TAINT_RESIZED);
  } catch (const Failure&) {
    map_.taint(TAINT_REPLACED);
  }
  if (device_.currentSequence() != map_.header(HEADER_DISK_SEQUENCE)) map_.taint(TAINT_REPLACED);
}

void Tripwire::pollPrograms() {
  if (!map_.isAttached()) map_.taint(TAINT_PROGRAM_GONE);
  const VolumeMap::Misses now = map_.recursionMisses();
  recursion_misses_ = now.queue + now.issue + now.complete;
  // One of the two queue marks is enough; where both were skipped a write may be unmarked.
  if (now.queue > misses_.queue && now.issue > misses_.issue) map_.taint(TAINT_PROGRAM_MISSED);
  misses_ = now;
}

// Fields of /sys/block/X/stat: 6 sectors written, 8 requests in flight, 13 sectors discarded (all
// from 0).
std::optional<Tripwire::Stat> Tripwire::readStat() const {
  const std::string line = readSmallFile(sysfs_ + "/stat");
  uint64_t fields[17] = {0};
  int position = 0;
  int count = 0;
  int used = 0;
  const char* text = line.c_str();
  while (count < 17 && sscanf(text + position, "%" SCNu64 "%n", &fields[count], &used) == 1) {
    position += used;
    count++;
  }
  if (count < 11) return std::nullopt;
  return Stat{fields[6] + fields[13], fields[8]};
}

// In this order: a bio queued and abandoned meanwhile must not make the result too small.
int64_t Tripwire::queuedNet() const {
  const Word abandoned = map_.header(COUNT_DISK_ABANDONED);
  return static_cast<int64_t>(map_.header(COUNT_DISK_QUEUED) - abandoned);
}

void Tripwire::pollCounts() {
  stat_alive_ = readSmallFile(sysfs_ + "/queue/iostats") == "1";
  if (!stat_alive_) return;
  Look look;
  look.queued_before = queuedNet();
  const std::optional<Stat> stat = readStat();
  look.queued_after = queuedNet();
  if (!stat) {
    stat_alive_ = false;
    return;
  }
  look.stat = *stat;
  if (map_.header(HEADER_STAT_KNOWN) == 0) {
    calibrate(look);
    return;
  }
  const int64_t completed =
      static_cast<int64_t>(look.stat.sectors - map_.header(HEADER_STAT_OFFSET));
  if (completed > look.queued_after) map_.taint(TAINT_UNTRACKED);
  if (completed == look.queued_before && look.queued_before == look.queued_after) atRest(look);
}

// The block layer counted from boot on, the programs since they were attached. The difference is
// known at a quiet instant; two looks that agree, because a bio between its tracepoint and its
// request is in neither.
void Tripwire::calibrate(const Look& look) {
  const bool is_quiet = look.stat.in_flight == 0 && look.queued_before == look.queued_after;
  const bool agrees = last_quiet_ && last_quiet_->queued_after == look.queued_before &&
                      last_quiet_->stat.sectors == look.stat.sectors;
  last_quiet_ = is_quiet ? std::optional<Look>(look) : std::nullopt;
  if (!is_quiet || !agrees) return;
  map_.setHeader(HEADER_STAT_OFFSET, look.stat.sectors - static_cast<uint64_t>(look.queued_after));
  map_.setHeader(HEADER_MISSED_BASE,
                 static_cast<uint64_t>(look.queued_after) - map_.header(COUNT_DISK_COMPLETED));
  map_.setHeader(HEADER_STAT_KNOWN, 1);
  atRest(look);
}

void Tripwire::atRest(const Look& look) {
  const uint64_t unseen =
      static_cast<uint64_t>(look.queued_after) - map_.header(COUNT_DISK_COMPLETED);
  const int64_t missed = static_cast<int64_t>(unseen - map_.header(HEADER_MISSED_BASE));
  if (queuedNet() != look.queued_after) return;
  missed_sectors_ = missed > 0 ? static_cast<uint64_t>(missed) : 0;
  if (swept_at_ != look.queued_after) takeOffStuck(look);
}

// The programs count a write as queued before they count it as in flight, so while the first count
// stands still the second holds nothing but what is stuck.
void Tripwire::takeOffStuck(const Look& look) {
  flight_.takeOffAll([&] {
    const bool is_at_rest = queuedNet() == look.queued_after;
    if (is_at_rest) swept_at_ = look.queued_after;
    return is_at_rest;
  });
}

}  // namespace understudy
