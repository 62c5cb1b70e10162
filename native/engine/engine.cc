#include "engine/engine.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <utility>

#include "engine/cutter.h"
#include "engine/failure.h"
#include "engine/tracked_volume.h"

namespace understudy {

namespace {

constexpr uint32_t kMaxReadBytes = 1 << 20;
constexpr std::chrono::milliseconds kPollInterval{1000};

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
  if (!options_.pins.control.empty()) {
    control_ = std::make_unique<ControlMap>(options_.pins.control);
    tracked_.resize(options_.paths.size());
  }
  devices_.resize(options_.paths.size());
  for (uint32_t volume = 0; volume < devices_.size(); volume++) openVolume(volume);
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

void Engine::openVolume(uint32_t volume) {
  auto device = std::make_shared<Device>(options_.paths[volume]);
  if (control_) {
    // Where this throws the former one stays: the thread goes on looking at every volume.
    auto tracked =
        std::make_unique<TrackedVolume>(device, options_.pins.volumes[volume], *control_);
    tracked_[volume] = std::move(tracked);
  }
  devices_[volume] = std::move(device);
}

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
  if (control_) {
    cutter_ = std::make_unique<Cutter>(*control_, tracked_, *pool_, *reader_, options_.rules);
  }
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
    if (tasks_.empty()) wake_.wait_for(lock, kPollInterval);
    std::function<void()> task = [] {};
    if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    lock.unlock();
    task();
    pollTripwires();
    lock.lock();
  }
  lock.unlock();
  reader_.reset();
}

void Engine::pollTripwires() {
  const auto now = std::chrono::steady_clock::now();
  if (!control_ || now - polled_at_ < kPollInterval) return;
  polled_at_ = now;
  for (auto& volume : tracked_) volume->pollTripwire();
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
  if (result.outcome == Outcome::Aborted) {
    pool_->discard();
    // What was read and is thrown away has to be read again.
    for (auto& volume : tracked_) volume->pendOutstanding();
  }
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

void Engine::drain(uint32_t job, std::vector<uint32_t> volumes) {
  post([this, job, volumes = std::move(volumes)] {
    report(job, [&](JobResult& result, std::vector<ReadFault>& faults) {
      cutter_->drain(volumes, result, faults);
    });
  });
}

void Engine::cut(uint32_t job, std::vector<uint32_t> volumes, double deadline_ms) {
  post([this, job, deadline_ms, volumes = std::move(volumes)] {
    report(job, [&](JobResult& result, std::vector<ReadFault>& faults) {
      cutter_->cut(volumes, deadline_ms, result, faults);
    });
  });
}

void Engine::pend(uint32_t volume, std::vector<Extent> extents) {
  post([this, volume, extents = std::move(extents)] {
    for (const Extent& extent : extents) tracked_[volume]->pend(extent.offset, extent.length);
    tracked_[volume]->publish();
  });
}

void Engine::pendOutstanding(uint32_t volume) {
  post([this, volume] {
    tracked_[volume]->pendOutstanding();
    tracked_[volume]->publish();
  });
}

void Engine::committed(uint32_t volume, uint64_t epoch) {
  post([this, volume, epoch] {
    tracked_[volume]->committed(epoch);
    tracked_[volume]->publish();
  });
}

void Engine::reopen(uint32_t volume) {
  std::promise<void> reopened;
  post([this, volume, &reopened] {
    try {
      openVolume(volume);
      reader_->useDevices();
      reopened.set_value();
    } catch (...) {
      reopened.set_exception(std::current_exception());
    }
  });
  reopened.get_future().get();
}

}  // namespace understudy
