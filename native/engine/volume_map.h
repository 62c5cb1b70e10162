// The pinned maps of a volume and of an agent, mapped into memory, and the programs that write
// them. Opening checks that the memory is what it says it is and that all programs are attached to
// it; whether its history may be taken over is decided from the header in TypeScript.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/bpf_calls.h"
#include "engine/planes.h"
#include "tracker/layout.h"

namespace understudy {

// A memory mapping of a BPF array of words.
class MappedWords {
 public:
  // Throws Failure ERR_TRACKER_PIN.
  MappedWords(const Handle& map, uint64_t words);
  ~MappedWords();
  MappedWords(const MappedWords&) = delete;
  MappedWords& operator=(const MappedWords&) = delete;
  Word* words() const { return words_; }

 private:
  Word* words_;
  uint64_t count_;
};

// The epoch word that all programs of an agent read.
class ControlMap {
 public:
  explicit ControlMap(const std::string& folder);
  Word epoch() const { return loadWord(words_.words() + CONTROL_EPOCH); }
  // T: from this store on, marks go to the other plane.
  void setEpoch(Word epoch);
  uint32_t id() const { return info_.id; }

 private:
  Handle map_;
  MapInfo info_;
  MappedWords words_;
};

class VolumeMap {
 public:
  // `folder` holds the pins of one volume. Throws Failure ERR_TRACKER_PIN (a pin is missing, a
  // program is detached) or ERR_TRACKER_DAMAGED (the header does not describe this map).
  VolumeMap(const std::string& folder, const ControlMap& control);

  Word header(int index) const { return loadWord(words_.words() + index); }
  void setHeader(int index, Word value);
  void taint(Word bit);

  uint64_t blocks() const { return header(HEADER_BLOCKS); }
  uint32_t blockBytes() const { return 512u << header(HEADER_SHIFT); }
  const Plane& queued(int side) const { return planes_[PLANE_Q + side]; }
  const Plane& completed(int side) const { return planes_[PLANE_C + side]; }
  const Plane& outstanding() const { return planes_[PLANE_OUTSTANDING]; }
  // All in-flight buckets: FLIGHT_DATA_WORDS, then FLIGHT_REGION_WORDS.
  Word* flight() const { return words_.words() + FLIGHT_DATA_BEGIN; }

  // True while all links attach the programs they attached when they were opened.
  bool isAttached() const;
  struct Misses {
    uint64_t queue;
    uint64_t issue;
    uint64_t complete;
  };
  // Events that the recursion guard kept from the programs since they were loaded.
  Misses recursionMisses() const;

 private:
  struct Program {
    Handle link;
    uint32_t id;
    Handle program;
  };

  void openPrograms(const std::string& folder, const ControlMap& control);

  Handle map_;
  MapInfo info_;
  MappedWords words_;
  Plane planes_[PLANE_COUNT];
  std::vector<Program> programs_;
};

}  // namespace understudy
