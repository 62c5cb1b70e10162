// Is the tracker still telling the truth? Compares what the programs counted with what the block
// layer counted (the disk's `stat`), asks the kernel whether programs were skipped or detached, and
// whether the disk is still the one it was. Doubt becomes a taint in the volume's header: a new
// generation (P6).
//
// At rest (everything queued has completed, by the block layer's own count) what is left in the
// in-flight counts is exactly what completions that the programs never saw have left there: it is
// taken off.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/flight.h"
#include "engine/volume_map.h"

namespace understudy {

class Tripwire {
 public:
  Tripwire(const Device& device, VolumeMap& map, Flight& flight);

  // A look at everything; cheap enough for once a second.
  void poll();

  // Sectors that completed by the block layer's count and were not seen to, at the last rest.
  uint64_t missedSectors() const { return missed_sectors_; }
  uint64_t recursionMisses() const { return recursion_misses_; }
  // False where the block layer does not count (iostats off): this tripwire is dead there.
  bool isStatAlive() const { return stat_alive_; }

 private:
  struct Stat {
    uint64_t sectors;    // written or discarded, completed
    uint64_t in_flight;  // requests
  };
  // One look, with the programs' counts before and after it.
  struct Look {
    Stat stat;
    int64_t queued_before;
    int64_t queued_after;
  };

  std::optional<Stat> readStat() const;
  int64_t queuedNet() const;
  void pollDevice();
  void pollPrograms();
  void pollCounts();
  void calibrate(const Look& look);
  void atRest(const Look& look);
  void takeOffStuck(const Look& look);

  const Device& device_;
  VolumeMap& map_;
  Flight& flight_;
  std::string sysfs_;
  bool stat_alive_ = false;
  std::optional<Look> last_quiet_;
  int64_t swept_at_ = -1;
  uint64_t missed_sectors_ = 0;
  uint64_t recursion_misses_ = 0;
  VolumeMap::Misses misses_{0, 0, 0};
};

}  // namespace understudy
