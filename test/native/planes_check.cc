// The harvest over plain memory: whole, in the face of new marks, and dying at every one of its
// stores.
#include <map>
#include <random>

#include "checks.h"
#include "engine/flight.h"
#include "engine/pending.h"
#include "engine/planes.h"

namespace understudy {
namespace {

constexpr size_t kWords = 2 * PAGE_WORDS;

struct OwnedPlane {
  std::vector<Word> summary = std::vector<Word>(PAGE_WORDS);
  std::vector<Word> leaf = std::vector<Word>(kWords);
  Plane plane() { return Plane{summary.data(), leaf.data(), kWords}; }
};

// As the programs mark: leaf, then summary.
void mark(OwnedPlane& plane, size_t block) {
  AtomicAccess access;
  setBits(access, plane.plane(), block / 64, Word{1} << (block % 64));
}

struct Died {};

// Dies instead of doing its `left`th store.
struct MortalAccess {
  int left;
  Word die(Word before) {
    if (left-- == 0) throw Died();
    return before;
  }
  Word exchange(Word* at, Word value) { return die(0), AtomicAccess().exchange(at, value); }
  Word fetchOr(Word* at, Word bits) { return die(0), AtomicAccess().fetchOr(at, bits); }
  Word fetchAnd(Word* at, Word bits) { return die(0), AtomicAccess().fetchAnd(at, bits); }
};

std::vector<size_t> someBlocks(unsigned seed) {
  std::mt19937 random(seed);
  std::vector<size_t> blocks;
  for (int i = 0; i < 40; i++) blocks.push_back(random() % (kWords * 64));
  for (size_t i = 0; i < 70; i++) blocks.push_back(1000 + i);
  return blocks;
}

// What a successor finds: `outstanding` and every plane, summaries not believed.
std::vector<Word> found(OwnedPlane& plane, OwnedPlane& outstanding) {
  std::vector<Word> result(kWords);
  AtomicAccess access;
  const auto take = [&](size_t word, Word bits, Word) { result[word] |= bits; };
  for (size_t word = 0; word < kWords; word++) result[word] |= outstanding.leaf[word];
  harvestAll(access, plane.plane(), outstanding.plane(), take);
  return result;
}

bool holdsAll(const std::vector<Word>& words, const std::vector<size_t>& blocks) {
  for (const size_t block : blocks) {
    if (!(words[block / 64] >> (block % 64) & 1)) return false;
  }
  return true;
}

TEST("a harvest moves every mark to outstanding and empties the plane") {
  OwnedPlane plane, outstanding;
  const std::vector<size_t> blocks = someBlocks(1);
  for (const size_t block : blocks) mark(plane, block);
  AtomicAccess access;
  std::vector<Word> taken(kWords);
  harvest(access, plane.plane(), outstanding.plane(),
          [&](size_t word, Word bits, Word) { taken[word] |= bits; });
  CHECK(holdsAll(taken, blocks));
  CHECK(holdsAll(outstanding.leaf, blocks));
  CHECK(plane.leaf == std::vector<Word>(kWords) && plane.summary == std::vector<Word>(PAGE_WORDS));
}

TEST("fresh bits are those that were not outstanding") {
  OwnedPlane plane, outstanding;
  mark(plane, 5);
  mark(plane, 6);
  mark(outstanding, 5);
  AtomicAccess access;
  Word fresh = 0;
  harvest(access, plane.plane(), outstanding.plane(),
          [&](size_t, Word, Word bits) { fresh |= bits; });
  CHECK(fresh == Word{1} << 6);
}

TEST("a mark that comes while its line is harvested is found by this harvest or the next") {
  OwnedPlane plane, outstanding;
  mark(plane, 100);
  AtomicAccess access;
  std::vector<Word> taken(kWords);
  bool is_first = true;
  const auto take = [&](size_t word, Word bits, Word) {
    taken[word] |= bits;
    if (is_first) {
      mark(plane, 101);  // same word
      mark(plane, 40);   // a word of the same line that has been passed
      mark(plane, 64 * 900);
    }
    is_first = false;
  };
  harvest(access, plane.plane(), outstanding.plane(), take);
  harvest(access, plane.plane(), outstanding.plane(), take);
  CHECK(holdsAll(taken, {100, 101, 40, 64 * 900}));
}

TEST("killed at any store of a harvest, no mark is lost") {
  const std::vector<size_t> blocks = someBlocks(2);
  int store = 0;
  for (bool has_died = true; has_died; store++) {
    OwnedPlane plane, outstanding;
    for (const size_t block : blocks) mark(plane, block);
    has_died = false;
    try {
      MortalAccess access{store};
      harvest(access, plane.plane(), outstanding.plane(), [](size_t, Word, Word) {});
    } catch (const Died&) {
      has_died = true;
    }
    CHECK(holdsAll(found(plane, outstanding), blocks));
  }
  CHECK(store > 100);
}

TEST("killed at any store of a takeover, no mark is lost") {
  const std::vector<size_t> blocks = someBlocks(3);
  int store = 0;
  for (bool has_died = true; has_died; store++) {
    OwnedPlane plane, outstanding;
    for (const size_t block : blocks) mark(plane, block);
    plane.summary.assign(PAGE_WORDS, 0);  // the predecessor died between summary and leaves
    has_died = false;
    try {
      MortalAccess access{store};
      harvestAll(access, plane.plane(), outstanding.plane(), [](size_t, Word, Word) {});
    } catch (const Died&) {
      has_died = true;
    }
    CHECK(holdsAll(found(plane, outstanding), blocks));
  }
}

TEST("a harvest that cleared before it saved would be noticed (canary)") {
  OwnedPlane plane, outstanding;
  mark(plane, 7);
  MortalAccess access{1};
  try {
    access.fetchAnd(&plane.leaf[0], 0);
    access.fetchOr(&outstanding.leaf[0], Word{1} << 7);
  } catch (const Died&) {
  }
  CHECK(!holdsAll(found(plane, outstanding), {7}));
}

TEST("pending agrees with a set, whatever is added and removed") {
  constexpr uint64_t kBlocks = 64 * 700 + 13;
  Pending pending(kBlocks);
  std::map<uint64_t, bool> expected;
  std::mt19937_64 random(4);
  for (int i = 0; i < 3000; i++) {
    const uint64_t first = random() % kBlocks;
    const uint64_t last = std::min(kBlocks - 1, first + random() % (i % 3 == 0 ? 300 : 4));
    const bool adds = random() % 2 == 0;
    if (adds) pending.addRange(first, last);
    if (!adds) pending.removeRange(first, last);
    for (uint64_t block = first; block <= last; block++) expected[block] = adds;
    if (i % 100 != 0) continue;
    uint64_t count = 0;
    for (const auto& [block, has] : expected) {
      CHECK(pending.has(block) == has);
      count += has;
    }
    uint64_t walked = 0;
    for (uint64_t block = 0; pending.next(block, block); block++, walked++) {
      CHECK(pending.has(block));
    }
    CHECK(walked == count);
    uint64_t visited = 0;
    pending.forEach([&](size_t, Word bits) { visited += __builtin_popcountll(bits); });
    CHECK(count == pending.count() && count == visited);
  }
  pending.clear();
  CHECK(pending.count() == 0);
  pending.forEach([](size_t, Word) { CHECK(false); });
}

class FlightWorld {
 public:
  std::vector<Word> buckets = std::vector<Word>(FLIGHT_DATA_WORDS + FLIGHT_REGION_WORDS);
  Flight::Time now = Flight::Time() + std::chrono::hours(1);
  Flight flight{buckets.data(), 3, now};

  // A minute with two harvests, in which `block` may be marked.
  void minute(bool marks, size_t block) {
    for (int harvest = 0; harvest < 2; harvest++) {
      now += std::chrono::seconds(31);
      flight.beginHarvest(now);
      if (marks) flight.touch(block / 64, Word{1} << (block % 64));
    }
    flight.sweepByAge(now);
  }
};

TEST("a count below zero is brought back towards zero, and counts as in flight once") {
  FlightWorld world;
  world.buckets[9] = static_cast<Word>(-8);
  CHECK(world.flight.mayHold(9));
  CHECK(world.buckets[9] == 0 && !world.flight.mayHold(9));
}

TEST("a region in flight holds all its blocks") {
  FlightWorld world;
  world.buckets[FLIGHT_DATA_WORDS + 1] = 8;
  CHECK(!world.flight.mayHold(4095) && world.flight.mayHold(4096) && world.flight.mayHold(8191));
}

TEST("what is stuck and untouched for long is taken off, exactly") {
  FlightWorld world;
  world.buckets[77] = 16;
  for (int i = 0; i < 9; i++) world.minute(false, 0);
  CHECK(world.buckets[77] == 16);
  for (int i = 0; i < 3; i++) world.minute(false, 0);
  CHECK(world.buckets[77] == 0);
}

TEST("what is touched, or moves, is left alone") {
  FlightWorld world;
  world.buckets[77] = 16;
  world.buckets[78] = 16;
  for (int i = 0; i < 30; i++) {
    world.minute(true, 77 + FLIGHT_DATA_WORDS);  // another block of the same bucket
    world.buckets[78]++;
  }
  CHECK(world.buckets[77] == 16 && world.buckets[78] == 46);
}

TEST("at rest all is taken off, unless it was no rest") {
  FlightWorld world;
  world.buckets[1] = 8;
  world.flight.takeOffAll([] { return false; });
  CHECK(world.buckets[1] == 8);
  world.flight.takeOffAll([] { return true; });
  CHECK(world.buckets[1] == 0);
}

}  // namespace
}  // namespace understudy
