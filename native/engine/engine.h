// The engine's thread: takes jobs in order, one at a time, at high priority, because priority decides whether
// cuts converge. It owns reader, buffers and (through the cutter) the harvest; all it does is mechanism,
// decided by the caller job by job. Results go to a listener, called on this thread.
#pragma once

#include <atomic>
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

struct EngineOptions {
  std::vector<std::string> paths;
  std::vector<Memory> buffers;
  unsigned depth = 32;
  std::shared_ptr<EngineListener> listener;
};

class Engine {
 public:
  // Opens the volumes and starts the thread. Throws Failure.
  explicit Engine(EngineOptions options);
  ~Engine();

  void read(uint32_t job, uint32_t volume, std::vector<Extent> extents);
  void release(uint32_t buffer);
  // Ends the running job early and joins the thread. Safe to call twice.
  void close();

 private:
  void run();
  void start();
  void post(std::function<void()> task);
  bool waitForRelease();
  void runRead(uint32_t job, uint32_t volume, const std::vector<Extent>& extents);
  // Runs `work` as `job` and reports how it ended, whatever happens.
  void report(uint32_t job, const std::function<void(JobResult&, std::vector<ReadFault>&)>& work);

  EngineOptions options_;
  std::vector<std::shared_ptr<Device>> devices_;
  std::unique_ptr<BufferPool> pool_;
  std::unique_ptr<Reader> reader_;
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
