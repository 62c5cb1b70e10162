#include "engine/pending.h"

#include <sys/mman.h>

#include <cerrno>

#include "engine/failure.h"

namespace understudy {

Pending::Pending(uint64_t blocks) {
  const size_t words = (blocks + 63) / 64;
  const size_t summaries = Plane::summaryWords(words + LINE_WORDS);
  bytes_ = (words + summaries) * sizeof(Word);
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw Failure("ERR_TRACKER_MEMORY", "mmap", errno);
  Word* base = static_cast<Word*>(memory);
  plane_ = Plane{base, base + summaries, words};
}

Pending::~Pending() { munmap(plane_.summary, bytes_); }

void Pending::add(size_t word, Word bits) {
  const Word before = plane_.leaf[word];
  count_ += static_cast<uint64_t>(__builtin_popcountll(bits & ~before));
  plane_.leaf[word] = before | bits;
  const size_t line = word / LINE_WORDS;
  plane_.summary[line / 64] |= Word{1} << (line % 64);
}

void Pending::addRange(uint64_t first, uint64_t last) {
  for (size_t word = first / 64; word <= last / 64; word++) {
    add(word, bitsWithin(word, first, last));
  }
}

void Pending::removeRange(uint64_t first, uint64_t last) {
  for (size_t word = first / 64; word <= last / 64; word++) {
    const Word bits = plane_.leaf[word] & bitsWithin(word, first, last);
    count_ -= static_cast<uint64_t>(__builtin_popcountll(bits));
    plane_.leaf[word] &= ~bits;
  }
}

bool Pending::next(uint64_t from, uint64_t& found) const {
  size_t word = from / 64;
  if (word >= plane_.words) return false;
  const auto take = [&](Word bits) {
    if (bits != 0) found = word * 64 + static_cast<uint64_t>(__builtin_ctzll(bits));
    return bits != 0;
  };
  if (take(plane_.leaf[word] & (~Word{0} << (from % 64)))) return true;
  for (word++; word < plane_.words;) {
    const size_t line = word / LINE_WORDS;
    const Word lines = plane_.summary[line / 64] & (~Word{0} << (line % 64));
    if (lines == 0) {
      word = (line / 64 + 1) * 64 * LINE_WORDS;
      continue;
    }
    const size_t first = line / 64 * 64 + static_cast<size_t>(__builtin_ctzll(lines));
    if (first > line) word = first * LINE_WORDS;
    for (const size_t end = (first + 1) * LINE_WORDS; word < end && word < plane_.words; word++) {
      if (take(plane_.leaf[word])) return true;
    }
  }
  return false;
}

void Pending::clear() {
  forEach([this](size_t word, Word) { plane_.leaf[word] = 0; });
  forEach([](size_t, Word) {});
  count_ = 0;
}

}  // namespace understudy
