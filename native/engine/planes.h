// Bit planes as they lie in the pinned map, and the harvest that moves marks from one to another.
// Every state between two stores may be the last one of this process: a mark is in `outstanding`
// before it leaves its plane, so whoever takes over finds it in one or the other. The stores go
// through `Access`, so that a test can die at each of them; nothing here knows of BPF.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tracker/layout.h"

namespace understudy {

using Word = uint64_t;

inline Word loadWord(const Word* at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }

// The stores of the harvest, atomic against the programs.
struct AtomicAccess {
  Word exchange(Word* at, Word value) { return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); }
  Word fetchOr(Word* at, Word bits) { return __atomic_fetch_or(at, bits, __ATOMIC_SEQ_CST); }
  Word fetchAnd(Word* at, Word bits) { return __atomic_fetch_and(at, bits, __ATOMIC_SEQ_CST); }
};

// One bit a block in `leaf`, one bit a line of LINE_WORDS in `summary`.
struct Plane {
  Word* summary;
  Word* leaf;
  size_t words;

  static size_t summaryWords(size_t words) { return (words / LINE_WORDS + 63) / 64; }
};

// Sets bits of a plane that only one thread writes: leaf before summary. Returns the bits that are
// new.
template <typename Access>
Word setBits(Access& access, const Plane& plane, size_t word, Word bits) {
  const Word before = loadWord(plane.leaf + word);
  if ((bits & ~before) != 0) access.fetchOr(plane.leaf + word, bits);
  const size_t line = word / LINE_WORDS;
  const Word mark = Word{1} << (line % 64);
  Word* summary = plane.summary + line / 64;
  if (!(loadWord(summary) & mark)) access.fetchOr(summary, mark);
  return bits & ~before;
}

// Calls `visit(word)` for every leaf word of the lines that are set in `lines`, the summary word
// `index`.
template <typename Visit>
void forEachWordOf(size_t index, Word lines, size_t words, Visit&& visit) {
  for (; lines != 0; lines &= lines - 1) {
    const size_t line = index * 64 + static_cast<size_t>(__builtin_ctzll(lines));
    const size_t begin = line * LINE_WORDS;
    const size_t end = begin + LINE_WORDS < words ? begin + LINE_WORDS : words;
    for (size_t word = begin; word < end; word++) visit(word);
  }
}

// Moves one leaf word to `outstanding`, then takes it off the plane, again while new marks come.
template <typename Access, typename Take>
void harvestWord(Access& access, const Plane& plane, const Plane& outstanding, size_t word,
                 Take&& take) {
  while (const Word bits = loadWord(plane.leaf + word)) {
    const Word fresh = setBits(access, outstanding, word, bits);
    access.fetchAnd(plane.leaf + word, ~bits);
    take(word, bits, fresh);
  }
}

// Moves all marks of `plane` to `outstanding`; `take(word, bits, fresh)` gets them, `fresh` being
// those that were not outstanding. The summary is cleared before its leaves: a program that marks
// meanwhile finds it cleared and sets it again.
template <typename Access, typename Take>
void harvest(Access& access, const Plane& plane, const Plane& outstanding, Take&& take) {
  const size_t summaries = Plane::summaryWords(plane.words);
  for (size_t index = 0; index < summaries; index++) {
    if (loadWord(plane.summary + index) == 0) continue;
    const Word lines = access.exchange(plane.summary + index, 0);
    forEachWordOf(index, lines, plane.words,
                  [&](size_t word) { harvestWord(access, plane, outstanding, word, take); });
  }
}

// The same without trust in the summary: a predecessor may have died after clearing it.
template <typename Access, typename Take>
void harvestAll(Access& access, const Plane& plane, const Plane& outstanding, Take&& take) {
  for (size_t word = 0; word < plane.words; word++) {
    harvestWord(access, plane, outstanding, word, take);
  }
}

}  // namespace understudy
