// Engine to JavaScript: jobs in, events out through one thread-safe function, in order.
#include "binding/bindings.h"
#include "binding/convert.h"
#include "engine/engine.h"
#include "engine/tracked_volume.h"

#include <memory>
#include <utility>

namespace understudy {

namespace {

const char* outcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::Valid:
      return "valid";
    case Outcome::Deadline:
      return "deadline";
    case Outcome::Drained:
      return "drained";
    default:
      return "aborted";
  }
}

// One event on its way to JavaScript.
struct Event {
  bool is_filled;
  uint32_t job;
  uint32_t buffer;
  std::vector<Piece> pieces;
  JobResult result;
  std::vector<ReadFault> faults;
};

Napi::Value piecesArray(Napi::Env env, const std::vector<Piece>& pieces) {
  Napi::Float64Array array = Napi::Float64Array::New(env, pieces.size() * 4);
  double* out = array.Data();
  for (const Piece& piece : pieces) {
    *out++ = piece.volume;
    *out++ = static_cast<double>(piece.offset);
    *out++ = piece.length;
    *out++ = piece.at;
  }
  return array;
}

Napi::Value faultsArray(Napi::Env env, const std::vector<ReadFault>& faults) {
  Napi::Array array = Napi::Array::New(env, faults.size());
  for (size_t i = 0; i < faults.size(); i++) {
    Napi::Object fault = Napi::Object::New(env);
    fault.Set("volume", faults[i].volume);
    fault.Set("offset", static_cast<double>(faults[i].offset));
    fault.Set("length", faults[i].length);
    fault.Set("errno", errnoName(faults[i].error));
    array.Set(static_cast<uint32_t>(i), fault);
  }
  return array;
}

Napi::Value resultObject(Napi::Env env, const JobResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("job", result.job);
  object.Set("outcome", outcomeName(result.outcome));
  object.Set("timeMs", result.time_ms);
  object.Set("durationMs", result.duration_ms);
  object.Set("passes", result.passes);
  object.Set("firstBlocks", static_cast<double>(result.first_blocks));
  object.Set("lastBlocks", static_cast<double>(result.last_blocks));
  object.Set("contestedBlocks", static_cast<double>(result.contested_blocks));
  object.Set("carriedBlocks", static_cast<double>(result.carried_blocks));
  return object;
}

void call(Napi::Env env, const Napi::Function& onEvent, const Event& event) {
  if (event.is_filled) {
    onEvent.Call({Napi::Number::New(env, event.job), Napi::Number::New(env, event.buffer),
                  piecesArray(env, event.pieces)});
  } else {
    onEvent.Call({resultObject(env, event.result), faultsArray(env, event.faults)});
  }
}

// onEvent(job, buffer, pieces) or onEvent(result, faults).
void deliver(Napi::Env env, Napi::Function onEvent, void*, Event* event) {
  const std::unique_ptr<Event> owner(event);
  if (env == nullptr || onEvent.IsEmpty()) return;
  try {
    call(env, onEvent, *event);
  } catch (const Napi::Error&) {
    // The JavaScript side throws nothing of its own (src/native/engine.ts): the environment is
    // being ended (worker.terminate), and nobody is left to be told.
    return;
  }
}

using Channel = Napi::TypedThreadSafeFunction<void, Event, deliver>;

class ChannelListener : public EngineListener {
 public:
  explicit ChannelListener(Channel channel) : channel_(channel) {}
  void filled(uint32_t job, uint32_t buffer, std::vector<Piece>&& pieces) override {
    send(new Event{true, job, buffer, std::move(pieces), {}, {}});
  }
  void done(const JobResult& result, std::vector<ReadFault>&& faults) override {
    send(new Event{false, result.job, 0, {}, result, std::move(faults)});
  }
  // The channel must not be touched once the environment has ended. Safe to call twice.
  void end() {
    if (!has_ended_) channel_.Release();
    has_ended_ = true;
  }

 private:
  void send(Event* event) {
    if (channel_.BlockingCall(event) != napi_ok) delete event;  // the environment is closing
  }
  Channel channel_;
  bool has_ended_ = false;
};

class CloseTask : public Napi::AsyncWorker {
 public:
  CloseTask(Napi::Env env, std::shared_ptr<Engine> engine,
            std::shared_ptr<ChannelListener> listener)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        engine_(std::move(engine)),
        listener_(std::move(listener)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }
  void Execute() override {
    if (engine_) engine_->close();
  }
  void OnOK() override {
    if (listener_) listener_->end();
    deferred_.Resolve(Env().Undefined());
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<ChannelListener> listener_;
};

class EngineBinding : public Napi::ObjectWrap<EngineBinding> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Engine",
                       {InstanceMethod("read", &EngineBinding::read),
                        InstanceMethod("drain", &EngineBinding::drain),
                        InstanceMethod("cut", &EngineBinding::cut),
                        InstanceMethod("release", &EngineBinding::release),
                        InstanceMethod("pend", &EngineBinding::pend),
                        InstanceMethod("pendOutstanding", &EngineBinding::pendOutstanding),
                        InstanceMethod("committed", &EngineBinding::committed),
                        InstanceMethod("reopen", &EngineBinding::reopen),
                        InstanceMethod("counters", &EngineBinding::counters),
                        InstanceMethod("close", &EngineBinding::close)});
  }

  // new Engine({paths, buffers, depth, control, pins}, onEvent); `control` is '' for volumes that
  // are only read.
  explicit EngineBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineBinding>(info) {
    Napi::Env env = info.Env();
    const Napi::Object options = info[0].As<Napi::Object>();
    EngineOptions settings;
    const Napi::Array paths = options.Get("paths").As<Napi::Array>();
    for (uint32_t i = 0; i < paths.Length(); i++) settings.paths.push_back(paths.Get(i).ToString());
    const Napi::Array buffers = options.Get("buffers").As<Napi::Array>();
    for (uint32_t i = 0; i < buffers.Length(); i++) {
      settings.buffers.push_back(toMemory(buffers.Get(i), "buffers"));
    }
    settings.depth = static_cast<unsigned>(toUint(options.Get("depth"), "depth"));
    readPins(options, settings);
    buffers_ = Napi::Persistent(buffers.As<Napi::Object>());
    volumes_ = settings.paths.size();
    Channel channel = Channel::New(env, info[1].As<Napi::Function>(), "understudy engine", 0, 1);
    listener_ = std::make_shared<ChannelListener>(channel);
    settings.listener = listener_;
    try {
      engine_ = std::make_shared<Engine>(std::move(settings));
    } catch (const Failure& failure) {
      listener_->end();
      throw toError(env, failure);
    }
    // Runs before the channel's own clean-up, because it is added after it.
    const std::weak_ptr<Engine> weak_engine = engine_;
    const std::weak_ptr<ChannelListener> weak_listener = listener_;
    env.AddCleanupHook([weak_engine, weak_listener] {
      if (const std::shared_ptr<Engine> engine = weak_engine.lock()) engine->close();
      if (const std::shared_ptr<ChannelListener> listener = weak_listener.lock()) listener->end();
    });
  }

  ~EngineBinding() override {
    if (engine_) engine_->close();
    if (listener_) listener_->end();
  }

 private:
  static void readPins(const Napi::Object& options, EngineOptions& settings) {
    settings.pins.control = options.Get("control").ToString();
    const Napi::Array pins = options.Get("pins").As<Napi::Array>();
    for (uint32_t i = 0; i < pins.Length(); i++) {
      settings.pins.volumes.push_back(pins.Get(i).ToString());
    }
    if (!settings.pins.control.empty() && settings.pins.volumes.size() != settings.paths.size()) {
      throw Napi::TypeError::New(options.Env(), "one pin folder for each volume");
    }
#ifdef UNDERSTUDY_TEST_KNOBS
    settings.rules.validates = !options.Get("skipsValidation").ToBoolean();
    settings.rules.follows_flight = !options.Get("ignoresFlight").ToBoolean();
#endif
  }

  Engine& open(Napi::Env env) {
    if (!engine_) throw toError(env, Failure("ERR_ENGINE_CLOSED", "engine", 0));
    return *engine_;
  }

  Engine& tracking(Napi::Env env) {
    Engine& engine = open(env);
    if (!engine.isTracking()) throw toError(env, Failure("ERR_TRACKER_UNTRACKED", "engine", 0));
    return engine;
  }

  std::vector<uint32_t> volumes(const Napi::Value& value) {
    const Napi::Array array = value.As<Napi::Array>();
    std::vector<uint32_t> result;
    for (uint32_t i = 0; i < array.Length(); i++) result.push_back(volume(array.Get(i)));
    return result;
  }

  uint32_t volume(const Napi::Value& value) {
    const uint64_t index = toUint(value, "volume");
    if (index >= volumes_) throw Napi::RangeError::New(value.Env(), "no such volume");
    return static_cast<uint32_t>(index);
  }

  void read(const Napi::CallbackInfo& info) {
    open(info.Env()).read(static_cast<uint32_t>(toUint(info[0], "job")), volume(info[1]),
                          toExtents(info[2]));
  }

  void drain(const Napi::CallbackInfo& info) {
    tracking(info.Env()).drain(static_cast<uint32_t>(toUint(info[0], "job")), volumes(info[1]));
  }

  void cut(const Napi::CallbackInfo& info) {
    tracking(info.Env())
        .cut(static_cast<uint32_t>(toUint(info[0], "job")), volumes(info[1]),
             info[2].ToNumber().DoubleValue());
  }

  void pend(const Napi::CallbackInfo& info) {
    tracking(info.Env()).pend(volume(info[0]), toExtents(info[1]));
  }

  void pendOutstanding(const Napi::CallbackInfo& info) {
    tracking(info.Env()).pendOutstanding(volume(info[0]));
  }

  void committed(const Napi::CallbackInfo& info) {
    tracking(info.Env()).committed(volume(info[0]), toUint(info[1], "epoch"));
  }

  Napi::Value reopen(const Napi::CallbackInfo& info) {
    Engine& engine = open(info.Env());
    const uint32_t index = volume(info[0]);
    guarded(info.Env(), [&] { engine.reopen(index); });
    return geometryObject(info.Env(), engine.device(index).geometry());
  }

  Napi::Value counters(const Napi::CallbackInfo& info) {
    TrackedVolume& tracked = tracking(info.Env()).tracked(volume(info[0]));
    const TrackedVolume::Published& published = tracked.published();
    Napi::Object result = Napi::Object::New(info.Env());
    const auto set = [&](const char* name, uint64_t value) {
      result.Set(name, static_cast<double>(value));
    };
    const uint64_t queued = tracked.queuedSectors();
    set("queuedSectors", queued);
    set("completedSectors", tracked.completedSectors());
    set("missedCompletions", published.missed_sectors);
    set("recursionMisses", published.recursion_misses);
    set("taint", tracked.map().header(HEADER_TAINT));
    set("suspectBlocks", published.carried);
    set("pendingBlocks", published.pending);
    set("outstandingBlocks", published.outstanding);
    set("writtenBytesSinceFlip", (queued - published.queued_at_flip) * 512);
    result.Set("isStatAlive", published.stat_alive.load());
    return result;
  }

  // A buffer may come back after the engine has been closed.
  void release(const Napi::CallbackInfo& info) {
    if (engine_) engine_->release(static_cast<uint32_t>(toUint(info[0], "buffer")));
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    auto* task = new CloseTask(info.Env(), std::move(engine_), std::move(listener_));
    task->Queue();
    return task->promise();
  }

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<ChannelListener> listener_;
  Napi::ObjectReference buffers_;
  size_t volumes_ = 0;
};

}  // namespace

void defineEngine(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", EngineBinding::define(env));
}

}  // namespace understudy
