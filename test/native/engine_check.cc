// Buffers, reader, device and engine over regular files, as the sanitizers see them.
#include <unistd.h>

#include <cstring>
#include <random>

#include "checks.h"
#include "engine/buffer_pool.h"
#include "engine/engine.h"
#include "engine/failure.h"

namespace understudy {
namespace {

class AlignedMemory {
 public:
  explicit AlignedMemory(size_t bytes) : bytes_(bytes) {
    CHECK(posix_memalign(&memory_, kAlignment, bytes) == 0);
  }
  ~AlignedMemory() { free(memory_); }
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;
  Memory get() const { return {static_cast<uint8_t*>(memory_), bytes_}; }

 private:
  void* memory_ = nullptr;
  size_t bytes_;
};

class TemporaryFile {
 public:
  explicit TemporaryFile(size_t bytes) : content(bytes) {
    std::mt19937_64 random(bytes);
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(random());
    char name[] = "/tmp/understudy-check-XXXXXX";
    const int fd = mkstemp(name);
    CHECK(fd >= 0 && write(fd, content.data(), bytes) == static_cast<ssize_t>(bytes));
    close(fd);
    path = name;
  }
  ~TemporaryFile() { unlink(path.c_str()); }
  std::string path;
  std::vector<uint8_t> content;
};

// Puts together what the engine hands over, on its thread.
class Collector : public EngineListener {
 public:
  Collector(std::vector<uint8_t>& image, const std::vector<Memory>& buffers)
      : image_(image), buffers_(buffers) {}
  void filled(uint32_t, uint32_t buffer, std::vector<Piece>&& pieces) override {
    for (const Piece& piece : pieces) {
      memcpy(image_.data() + piece.offset, buffers_[buffer].data + piece.at, piece.length);
    }
    engine->release(buffer);
  }
  void done(const JobResult& result, std::vector<ReadFault>&& faults) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    result_ = result;
    faults_ = std::move(faults);
    jobs_++;
    ended_.notify_all();
  }
  JobResult wait(int jobs) {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [&] { return jobs_ >= jobs; });
    return result_;
  }
  size_t faults() const { return faults_.size(); }
  Engine* engine = nullptr;

 private:
  std::vector<uint8_t>& image_;
  const std::vector<Memory> buffers_;
  std::mutex mutex_;
  std::condition_variable ended_;
  JobResult result_;
  std::vector<ReadFault> faults_;
  int jobs_ = 0;
};

TEST("the newest reading of a block is the one that stays") {
  AlignedMemory memory(1 << 20);
  std::vector<Piece> out;
  BufferPool pool({memory.get()}, [&](uint32_t, std::vector<Piece>&& pieces) { out = pieces; });
  CHECK(pool.openNext());
  for (const uint64_t offset : {0, 4096, 8192, 4096}) {
    uint32_t buffer = 0, at = 0;
    CHECK(pool.reserve(4096, buffer, at) != nullptr);
    pool.landed(buffer, Piece{0, 4096, offset, at});
  }
  std::vector<uint64_t> seen;
  pool.reduce([&](const Piece& piece, std::vector<Piece>& kept) {
    for (const uint64_t offset : seen) {
      if (offset == piece.offset) return;
    }
    seen.push_back(piece.offset);
    kept.push_back(piece);
  });
  pool.handOverAll();
  CHECK(out.size() == 3);
  CHECK(out[0].offset == 0 && out[0].length == 4096);
  CHECK(out[1].offset == 8192 && out[2].offset == 4096 && out[2].at == 3 * 4096);
}

TEST("a buffer is filled again only after it has been released") {
  AlignedMemory memory(1 << 20);
  BufferPool pool({memory.get()}, [](uint32_t, std::vector<Piece>&&) {});
  uint32_t buffer = 0, at = 0;
  CHECK(pool.openNext() && pool.reserve(4096, buffer, at) != nullptr);
  pool.landed(buffer, Piece{0, 4096, 0, at});
  pool.handOverAll();
  CHECK(!pool.openNext());
  pool.release(99);
  pool.release(buffer);
  pool.release(buffer);
  CHECK(pool.openNext());
  CHECK(!pool.openNext());
}

TEST("the engine reads files to their odd ends, reports faults, and ends") {
  TemporaryFile file(5 * (1 << 20) + 4321);
  std::vector<uint8_t> image(file.content.size());
  AlignedMemory first(1 << 20), second(1 << 20);
  const std::vector<Memory> buffers = {first.get(), second.get()};
  auto collector = std::make_shared<Collector>(image, buffers);
  EngineOptions options;
  options.paths = {file.path};
  options.buffers = buffers;
  options.depth = 4;
  options.listener = collector;
  Engine engine(options);
  collector->engine = &engine;
  engine.read(1, 0, {{0, file.content.size()}});
  CHECK(collector->wait(1).outcome == Outcome::Drained && collector->faults() == 0);
  CHECK(image == file.content);
  engine.read(2, 0, {{1 << 30, 4096}});
  CHECK(collector->wait(2).job == 2 && collector->faults() == 1);
  engine.reopen(0);
  engine.close();
  engine.close();
}

TEST("what cannot be opened, or is no volume, is told") {
  EngineOptions options;
  options.paths = {"/tmp"};
  try {
    Engine engine(options);
    CHECK(false);
  } catch (const Failure& failure) {
    CHECK(failure.code == "ERR_DEVICE_NOT_VOLUME" && failure.error == EISDIR);
  }
}

}  // namespace
}  // namespace understudy

int main() {
  for (const Test& test : allTests()) {
    test.run();
    printf("ok %s\n", test.name.c_str());
  }
  return 0;
}
