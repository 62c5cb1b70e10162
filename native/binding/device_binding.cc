// Device to JavaScript: open and geometry at once, reads as promises on libuv's threads.
#include "binding/bindings.h"
#include "binding/convert.h"
#include "engine/device.h"

#include <memory>
#include <optional>

namespace understudy {

namespace {

const char* kindName(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::Disk:
      return "disk";
    case DeviceKind::Partition:
      return "partition";
    default:
      return "file";
  }
}

// A task on libuv's threads whose Failure rejects the promise.
class Task : public Napi::AsyncWorker {
 public:
  explicit Task(Napi::Env env)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  virtual void work() = 0;
  virtual Napi::Value result(Napi::Env env) = 0;

  void Execute() override {
    try {
      work();
    } catch (const Failure& failure) {
      failure_.emplace(failure);
    }
  }
  void OnOK() override {
    if (failure_) {
      deferred_.Reject(toError(Env(), *failure_).Value());
    } else {
      deferred_.Resolve(result(Env()));
    }
  }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::optional<Failure> failure_;
};

class ReadTask : public Task {
 public:
  ReadTask(Napi::Env env, std::shared_ptr<Device> device, const Napi::Value& buffer,
           uint64_t offset)
      : Task(env),
        device_(std::move(device)),
        memory_(toMemory(buffer, "buffer")),
        offset_(offset),
        keep_(Napi::Persistent(buffer.As<Napi::Object>())) {}

 protected:
  void work() override {
    done_ = device_->read(memory_.data, memory_.size, memory_.size, offset_);
  }
  Napi::Value result(Napi::Env env) override {
    return Napi::Number::New(env, static_cast<double>(done_));
  }

 private:
  std::shared_ptr<Device> device_;
  Memory memory_;
  uint64_t offset_;
  size_t done_ = 0;
  Napi::ObjectReference keep_;
};

class NextDataTask : public Task {
 public:
  NextDataTask(Napi::Env env, std::shared_ptr<Device> device, uint64_t offset)
      : Task(env), device_(std::move(device)), offset_(offset) {}

 protected:
  void work() override { found_ = device_->nextData(offset_); }
  Napi::Value result(Napi::Env env) override {
    if (!found_) return env.Null();
    Napi::Object extent = Napi::Object::New(env);
    extent.Set("offset", static_cast<double>(found_->first));
    extent.Set("length", static_cast<double>(found_->second - found_->first));
    return extent;
  }

 private:
  std::shared_ptr<Device> device_;
  uint64_t offset_;
  std::optional<std::pair<uint64_t, uint64_t>> found_;
};

class DeviceBinding : public Napi::ObjectWrap<DeviceBinding> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Device",
                       {InstanceMethod("geometry", &DeviceBinding::geometry),
                        InstanceMethod("read", &DeviceBinding::read),
                        InstanceMethod("nextData", &DeviceBinding::nextData),
                        InstanceMethod("currentSize", &DeviceBinding::currentSize),
                        InstanceMethod("close", &DeviceBinding::close)});
  }

  explicit DeviceBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeviceBinding>(info) {
    const std::string path = info[0].ToString();
    device_ = guarded(info.Env(), [&] { return std::make_shared<Device>(path); });
  }

 private:
  Device& open(Napi::Env env) {
    if (!device_) throw toError(env, Failure("ERR_DEVICE_CLOSED", "device", 0));
    return *device_;
  }

  Napi::Value geometry(const Napi::CallbackInfo& info) {
    return geometryObject(info.Env(), open(info.Env()).geometry());
  }

  Napi::Value read(const Napi::CallbackInfo& info) {
    open(info.Env());
    auto* task = new ReadTask(info.Env(), device_, info[0], toUint(info[1], "offset"));
    task->Queue();
    return task->promise();
  }

  Napi::Value nextData(const Napi::CallbackInfo& info) {
    open(info.Env());
    auto* task = new NextDataTask(info.Env(), device_, toUint(info[0], "offset"));
    task->Queue();
    return task->promise();
  }

  Napi::Value currentSize(const Napi::CallbackInfo& info) {
    Device& device = open(info.Env());
    const uint64_t size = guarded(info.Env(), [&] { return device.currentSize(); });
    return Napi::Number::New(info.Env(), static_cast<double>(size));
  }

  // Reads under way keep the file descriptor until they have ended.
  void close(const Napi::CallbackInfo&) { device_.reset(); }

  std::shared_ptr<Device> device_;
};

}  // namespace

Napi::Object geometryObject(Napi::Env env, const Geometry& geometry) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("sizeBytes", static_cast<double>(geometry.size_bytes));
  result.Set("sectorBytes", geometry.sector_bytes);
  result.Set("kind", kindName(geometry.kind));
  result.Set("diskMajor", geometry.disk_major);
  result.Set("diskMinor", geometry.disk_minor);
  result.Set("startBytes", static_cast<double>(geometry.start_bytes));
  result.Set("diskSequence", static_cast<double>(geometry.disk_sequence));
  return result;
}

void defineDevice(Napi::Env env, Napi::Object exports) {
  exports.Set("Device", DeviceBinding::define(env));
}

}  // namespace understudy
