// The engine's thread: takes jobs in order, one at a time, at high priority, because priority
// decides whether cuts converge. It owns reader, buffers and (through the cutter) the harvest; all
// it does is mechanism, decided by the caller job by job. Results go to a listener, called on this
// thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/buffer_pool.h"
#include "engine/device.h"
#include "engine/reader.h"

namespace understudy {

struct Extent {
  uint64_t offset;
  uint64_t length;
};

enum class Outcome { Valid, Deadline, Drained, Aborted };

struct JobResult {
  uint32_t job = 0;
  Outcome outcome = Outcome::Aborted;
  double time_ms = 0;
  double duration_ms = 0;
  uint32_t passes = 0;
  uint64_t first_blocks = 0;
  uint64_t last_blocks = 0;
  uint64_t contested_blocks = 0;
  uint64_t carried_blocks = 0;
};

class EngineListener {
 public:
  virtual ~EngineListener() = default;
  virtual void filled(uint32_t job, uint32_t buffer, std::vector<Piece>&& pieces) = 0;
  virtual void done(const JobResult& result, std::vector<ReadFault>&& faults) = 0;
};

// What tests take out to see that the oracles notice; always all true in the shipped addon.
struct CutterRules {
  bool validates = true;
  bool follows_flight = true;
};

// Where the pins of the tracked volumes lie; empty folders where volumes are only read.
struct TrackerPins {
  std::string control;
  std::vector<std::string> volumes;
};

struct EngineOptions {
  std::vector<std::string> paths;
  TrackerPins pins;
  CutterRules rules;
  std::vector<Memory> buffers;
  unsigned depth = 64;
  std::shared_ptr<EngineListener> listener;
};

class Cutter;
class ControlMap;
class TrackedVolume;

class Engine {
 public:
  // Opens the volumes and starts the thread. Throws Failure.
  explicit Engine(EngineOptions options);
  ~Engine();

  bool isTracking() const { return control_ != nullptr; }
  void read(uint32_t job, uint32_t volume, std::vector<Extent> extents);
  void drain(uint32_t job, std::vector<uint32_t> volumes);
  void cut(uint32_t job, std::vector<uint32_t> volumes, double deadline_ms);
  void release(uint32_t buffer);
  void pend(uint32_t volume, std::vector<Extent> extents);
  void pendOutstanding(uint32_t volume);
  void committed(uint32_t volume, uint64_t epoch);
  // Opens the volume and its pins anew; waits for it, so no job may be running. Throws Failure.
  void reopen(uint32_t volume);
  // To be read on the caller's thread; valid until `reopen` or `close`.
  TrackedVolume& tracked(uint32_t volume) { return *tracked_[volume]; }
  const Device& device(uint32_t volume) const { return *devices_[volume]; }
  // Ends the running job early and joins the thread. Safe to call twice.
  void close();

 private:
  void run();
  void start();
  void post(std::function<void()> task);
  bool waitForRelease();
  void openVolume(uint32_t volume);
  void pollTripwires();
  void runRead(uint32_t job, uint32_t volume, const std::vector<Extent>& extents);
  // Runs `work` as `job` and reports how it ended, whatever happens.
  void report(uint32_t job, const std::function<void(JobResult&, std::vector<ReadFault>&)>& work);

  EngineOptions options_;
  std::vector<std::shared_ptr<Device>> devices_;
  std::unique_ptr<BufferPool> pool_;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<ControlMap> control_;
  std::vector<std::unique_ptr<TrackedVolume>> tracked_;
  std::unique_ptr<Cutter> cutter_;
  std::chrono::steady_clock::time_point polled_at_{};
  uint32_t running_job_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool released_ = false;
  bool started_ = false;
  std::exception_ptr start_error_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace understudy
