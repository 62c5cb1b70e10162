// One volume's marks as the cutter uses them: taken from the planes into `pending`, asked whether a
// write may be in flight, looked at for contested blocks, let go once committed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/device.h"
#include "engine/flight.h"
#include "engine/pending.h"
#include "engine/tripwire.h"
#include "engine/volume_map.h"

namespace understudy {

class TrackedVolume {
 public:
  // What JavaScript may read at any time.
  struct Published {
    std::atomic<uint64_t> pending{0};
    std::atomic<uint64_t> outstanding{0};
    std::atomic<uint64_t> carried{0};
    std::atomic<uint64_t> missed_sectors{0};
    std::atomic<uint64_t> recursion_misses{0};
    std::atomic<uint64_t> queued_at_flip{0};
    std::atomic<bool> stat_alive{false};
  };

  // Takes over: whatever is outstanding or marked in any plane becomes pending.
  TrackedVolume(std::shared_ptr<Device> device, const std::string& folder,
                const ControlMap& control);

  const Device& device() const { return *device_; }
  VolumeMap& map() { return map_; }
  Pending& pending() { return pending_; }
  // An empty set of blocks for the cutter's own use.
  Pending& scratch() { return scratch_; }
  const Published& published() const { return published_; }
  uint32_t blockBytes() const { return block_bytes_; }

  // Moves the marks of one side's planes into `pending`. `completions`: those of the C plane too.
  void harvestSide(int side, bool completions);
  Flight& flight() { return flight_; }
  // Blocks of [first, last] marked at queue in the plane of `side`.
  uint64_t markedAtQueue(int side, uint64_t first, uint64_t last) const;

  void pend(uint64_t offset, uint64_t length);
  void pendOutstanding();
  // Epoch first, then the outstanding bits that are not pending: a death in between leaves too
  // many.
  void committed(uint64_t epoch);

  // What JavaScript is told from now on.
  void publish();
  void publishCarried(uint64_t blocks) { published_.carried = blocks; }
  void noteFlip();
  // Sectors queued to be changed within the volume since the programs were loaded.
  uint64_t queuedSectors() const;
  uint64_t completedSectors() const;
  void pollTripwire();

 private:
  void takeOver();
  void addHarvested(size_t word, Word bits, Word fresh);

  std::shared_ptr<Device> device_;
  VolumeMap map_;
  Pending pending_;
  Pending scratch_;
  Flight flight_;
  Tripwire tripwire_;
  const uint32_t block_bytes_;
  uint64_t outstanding_count_ = 0;
  AtomicAccess access_;
  Published published_;
};

}  // namespace understudy
