// The cut: flips, harvests, reads and validates until the image of all volumes of the job is that
// of one instant T (P2). A pass:
//
//   1. what is left in the planes about to become active is harvested
//   2. T: the wall clock is read, then the epoch word exchanged: marks go to the other planes
//   3. the old planes are harvested, at queue and at completion; blocks with a write that may still
//      be in flight stay pending for the next pass
//   4. what is pending is read; as each read ends, a mark at queue in the now active plane makes
//      its blocks contested: they may hold a write issued after T, and are by construction in the
//      next pass's set
//
// No contested block: the cut is valid at T. Why no grace period is needed is said in
// tracker.bpf.c.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/buffer_pool.h"
#include "engine/engine.h"
#include "engine/reader.h"
#include "engine/tracked_volume.h"
#include "engine/volume_map.h"

namespace understudy {

class Cutter {
 public:
  Cutter(ControlMap& control, std::vector<std::unique_ptr<TrackedVolume>>& volumes,
         BufferPool& pool, Reader& reader, CutterRules rules);

  // One pass without validation.
  void drain(const std::vector<uint32_t>& volumes, JobResult& result,
             std::vector<ReadFault>& faults);
  // Passes until none is contested or the deadline has gone by.
  void cut(const std::vector<uint32_t>& volumes, double deadline_ms, JobResult& result,
           std::vector<ReadFault>& faults);

 private:
  // Steps 1 to 3.
  void flip(const std::vector<uint32_t>& volumes, JobResult& result);
  // All steps; false when the engine is being closed.
  bool pass(const std::vector<uint32_t>& volumes, uint64_t longest_bytes, bool hold_back,
            JobResult& result, std::vector<ReadFault>& faults);
  void dropSuperseded();

  ControlMap& control_;
  std::vector<std::unique_ptr<TrackedVolume>>& volumes_;
  BufferPool& pool_;
  Reader& reader_;
  const CutterRules rules_;
};

}  // namespace understudy
