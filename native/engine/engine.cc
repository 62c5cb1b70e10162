#include "engine/engine.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "engine/failure.h"

namespace understudy {

namespace {

constexpr uint32_t kMaxReadBytes = 1 << 20;

// A `read` job's extents, cut into reads of at most kMaxReadBytes.
class ExtentSource : public ReadSource {
 public:
  ExtentSource(uint32_t volume, const std::vector<Extent>& extents)
      : volume_(volume), extents_(extents) {}

  bool next(ReadItem& item) override {
    while (index_ < extents_.size() && done_ == extents_[index_].length) {
      index_++;
      done_ = 0;
    }
    if (index_ == extents_.size()) return false;
    const uint64_t rest = extents_[index_].length - done_;
    const uint32_t length = static_cast<uint32_t>(std::min<uint64_t>(rest, kMaxReadBytes));
    item = ReadItem{volume_, length, extents_[index_].offset + done_, false};
    done_ += length;
    return true;
  }

 private:
  const uint32_t volume_;
  const std::vector<Extent>& extents_;
  size_t index_ = 0;
  uint64_t done_ = 0;
};

}  // namespace

Engine::Engine(EngineOptions options) : options_(std::move(options)) {
  for (const Memory& memory : options_.buffers) {
    if (memory.size < kMaxReadBytes || reinterpret_cast<uintptr_t>(memory.data) % kAlignment != 0) {
      throw Failure("ERR_BUG", "engine buffer: at least 1 MiB, aligned to 4096", EINVAL);
    }
  }
  for (const std::string& path : options_.paths) devices_.push_back(std::make_shared<Device>(path));
  pool_ = std::make_unique<BufferPool>(
      options_.buffers, [this](uint32_t buffer, std::vector<Piece>&& pieces) {
        options_.listener->filled(running_job_, buffer, std::move(pieces));
      });
  thread_ = std::thread([this] { run(); });
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [this] { return started_; });
  if (!start_error_) return;
  lock.unlock();
  thread_.join();
  std::rethrow_exception(start_error_);
}

Engine::~Engine() { close(); }

void Engine::close() {
  stopping_ = true;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Engine::post(std::function<void()> task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tasks_.push_back(std::move(task));
  wake_.notify_all();
}

void Engine::release(uint32_t buffer) {
  pool_->release(buffer);
  const std::lock_guard<std::mutex> lock(mutex_);
  released_ = true;
  wake_.notify_all();
}

bool Engine::waitForRelease() {
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [this] { return released_ || stopping_; });
  released_ = false;
  return !stopping_;
}

// The ring belongs to the thread that makes it, so the reader is made here.
void Engine::start() {
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), -20);
  Reader::Hooks hooks;
  hooks.waitForRelease = [this] { return waitForRelease(); };
  hooks.isStopping = [this] { return stopping_.load(); };
  reader_ = std::make_unique<Reader>(devices_, *pool_, options_.depth, std::move(hooks));
}

void Engine::run() {
  try {
    start();
  } catch (...) {
    start_error_ = std::current_exception();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  started_ = true;
  wake_.notify_all();
  while (!start_error_ && !stopping_) {
    if (tasks_.empty()) {
      wake_.wait(lock);
      continue;
    }
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
  lock.unlock();
  reader_.reset();
}

void Engine::report(uint32_t job,
                    const std::function<void(JobResult&, std::vector<ReadFault>&)>& work) {
  const auto begin = std::chrono::steady_clock::now();
  running_job_ = job;
  JobResult result;
  result.job = job;
  std::vector<ReadFault> faults;
  try {
    work(result, faults);
  } catch (const Failure& failure) {
    result.outcome = Outcome::Aborted;
    faults.push_back(ReadFault{0, 0, 0, failure.error});
  }
  if (result.outcome == Outcome::Aborted) pool_->discard();
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - begin;
  result.duration_ms = spent.count();
  options_.listener->done(result, std::move(faults));
}

void Engine::read(uint32_t job, uint32_t volume, std::vector<Extent> extents) {
  post([this, job, volume, extents = std::move(extents)] { runRead(job, volume, extents); });
}

void Engine::runRead(uint32_t job, uint32_t volume, const std::vector<Extent>& extents) {
  report(job, [&](JobResult& result, std::vector<ReadFault>& faults) {
    ExtentSource source(volume, extents);
    if (!reader_->run(source, false, faults)) return;
    pool_->handOverAll();
    result.outcome = Outcome::Drained;
  });
}

}  // namespace understudy
