#include "engine/volume_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "engine/failure.h"

namespace understudy {

namespace {

enum ProgramIndex { kBioQueue, kRqIssue, kRqComplete, kRqCompleteAgain, kBioComplete };
const char* const kProgramPins[] = {"bio_queue", "rq_issue", "rq_complete", "rq_complete_again",
                                    "bio_complete"};

MapInfo checkedInfo(const Handle& map, const std::string& path, uint64_t least_words) {
  const MapInfo info = mapInfo(map);
  if (info.value_size != sizeof(Word) || info.max_entries < least_words) {
    throw Failure("ERR_TRACKER_DAMAGED", "map size", EINVAL, path);
  }
  return info;
}

}  // namespace

MappedWords::MappedWords(const Handle& map, uint64_t words) : count_(words) {
  const size_t bytes = words * sizeof(Word);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
  if (memory == MAP_FAILED) throw Failure("ERR_TRACKER_PIN", "mmap", errno);
  words_ = static_cast<Word*>(memory);
}

MappedWords::~MappedWords() { munmap(words_, count_ * sizeof(Word)); }

ControlMap::ControlMap(const std::string& folder)
    : map_(openPin(folder + "/control")),
      info_(checkedInfo(map_, folder, CONTROL_WORDS)),
      words_(map_, CONTROL_WORDS) {
  const Word* words = words_.words();
  if (words[CONTROL_MAGIC] != TRACKER_MAGIC || words[CONTROL_VERSION] != TRACKER_VERSION) {
    throw Failure("ERR_TRACKER_DAMAGED", "control map", EINVAL, folder);
  }
}

void ControlMap::setEpoch(Word epoch) {
  __atomic_exchange_n(words_.words() + CONTROL_EPOCH, epoch, __ATOMIC_SEQ_CST);
}

VolumeMap::VolumeMap(const std::string& folder, const ControlMap& control)
    : map_(openPin(folder + "/map")),
      info_(checkedInfo(map_, folder, PLANES_BEGIN)),
      words_(map_, info_.max_entries) {
  const Word plane_words = header(HEADER_PLANE_WORDS);
  const Word summary_words = header(HEADER_SUMMARY_WORDS);
  const bool is_sound =
      header(HEADER_MAGIC) == TRACKER_MAGIC && header(HEADER_VERSION) == TRACKER_VERSION &&
      header(HEADER_SHIFT) < 20 && plane_words < info_.max_entries &&
      summary_words >= Plane::summaryWords(plane_words) && blocks() <= plane_words * 64 &&
      PLANES_BEGIN + PLANE_COUNT * (plane_words + summary_words) == info_.max_entries;
  if (!is_sound) throw Failure("ERR_TRACKER_DAMAGED", "header", EINVAL, folder);
  for (int i = 0; i < PLANE_COUNT; i++) {
    Word* base = words_.words() + PLANES_BEGIN + i * (plane_words + summary_words);
    planes_[i] = Plane{base, base + summary_words, plane_words};
  }
  openPrograms(folder, control);
}

void VolumeMap::openPrograms(const std::string& folder, const ControlMap& control) {
  for (const char* pin : kProgramPins) {
    const std::string path = folder + "/" + pin;
    Program program{openPin(path), 0, Handle()};
    program.id = linkProgram(program.link);
    program.program = openProgram(program.id);
    const std::vector<uint32_t> maps = programInfo(program.program).map_ids;
    const auto uses = [&](uint32_t id) {
      return std::find(maps.begin(), maps.end(), id) != maps.end();
    };
    const bool marks = std::string(pin) != "bio_complete";
    if (!uses(info_.id) || (marks && !uses(control.id()))) {
      throw Failure("ERR_TRACKER_DAMAGED", "program of another map", EINVAL, path);
    }
    programs_.push_back(std::move(program));
  }
}

void VolumeMap::setHeader(int index, Word value) {
  __atomic_store_n(words_.words() + index, value, __ATOMIC_SEQ_CST);
}

void VolumeMap::taint(Word bit) {
  __atomic_fetch_or(words_.words() + HEADER_TAINT, bit, __ATOMIC_SEQ_CST);
}

bool VolumeMap::isAttached() const {
  return std::all_of(programs_.begin(), programs_.end(), [](const Program& program) {
    return linkProgram(program.link) == program.id;
  });
}

VolumeMap::Misses VolumeMap::recursionMisses() const {
  const auto misses = [&](ProgramIndex index) {
    return programInfo(programs_[index].program).recursion_misses;
  };
  return Misses{misses(kBioQueue), misses(kRqIssue), misses(kRqComplete)};
}

}  // namespace understudy
