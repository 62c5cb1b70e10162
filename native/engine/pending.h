// The blocks of one volume that are still to be read: a plane in ordinary memory, of which only the
// touched pages cost anything. What it holds is lost with the process, and does not matter: it is
// rebuilt from what is pinned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/planes.h"

namespace understudy {

class Pending {
 public:
  // Throws Failure ERR_TRACKER_MEMORY.
  explicit Pending(uint64_t blocks);
  ~Pending();
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  uint64_t count() const { return count_; }
  Word word(size_t index) const { return plane_.leaf[index]; }
  bool has(uint64_t block) const { return plane_.leaf[block / 64] >> (block % 64) & 1; }

  void add(size_t word, Word bits);
  // Blocks [first, last].
  void addRange(uint64_t first, uint64_t last);
  void removeRange(uint64_t first, uint64_t last);
  void clear();

  // The first block of the set from `from` on; false when there is none.
  bool next(uint64_t from, uint64_t& found) const;

  // Calls `visit(word, bits)` for every word with bits, ascending; forgets lines that are empty.
  template <typename Visit>
  void forEach(Visit&& visit) {
    const size_t summaries = Plane::summaryWords(plane_.words);
    for (size_t index = 0; index < summaries; index++) {
      Word lines = plane_.summary[index];
      for (; lines != 0; lines &= lines - 1) {
        const Word line = lines & -lines;
        bool has_bits = false;
        forEachWordOf(index, line, plane_.words, [&](size_t word) {
          if (plane_.leaf[word] == 0) return;
          has_bits = true;
          visit(word, plane_.leaf[word]);
        });
        if (!has_bits) plane_.summary[index] &= ~line;
      }
    }
  }

 private:
  Plane plane_;
  size_t bytes_;
  uint64_t count_ = 0;
};

// The bits of leaf word `word` that belong to blocks [first, last].
inline Word bitsWithin(size_t word, uint64_t first, uint64_t last) {
  Word bits = ~Word{0};
  if (word == first / 64) bits &= ~Word{0} << (first % 64);
  if (word == last / 64) bits &= ~Word{0} >> (63 - last % 64);
  return bits;
}

}  // namespace understudy
