// The module: classes Device and Engine, the tracker's pins, and the address of a buffer, by which
// aligned memory is found.
#include <malloc.h>

#include "binding/bindings.h"
#include "binding/convert.h"

namespace understudy {

namespace {

// Bytes to skip so that the address of a Uint8Array is a multiple of kAlignment.
Napi::Value bytesToAlignment(const Napi::CallbackInfo& info) {
  const Memory memory = toMemory(info[0], "buffer");
  const uint64_t address = reinterpret_cast<uintptr_t>(memory.data);
  return Napi::Number::New(info.Env(),
                           static_cast<double>((kAlignment - address % kAlignment) % kAlignment));
}

// glibc gives the top of a heap back at every free beyond 128 KiB of it, and the next allocation faults the
// same pages in again: LZ4 of 64 KiB pieces ran at 195 MB/s so, and at 501 MB/s with some slack.
void keepHeapSlack(const Napi::CallbackInfo&) {
  constexpr int kKept = 2 << 20;
  constexpr int kAhead = 256 << 10;
  mallopt(M_TRIM_THRESHOLD, kKept);
  mallopt(M_TOP_PAD, kAhead);
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("bytesToAlignment", Napi::Function::New(env, bytesToAlignment));
  exports.Set("keepHeapSlack", Napi::Function::New(env, keepHeapSlack));
  defineDevice(env, exports);
  defineEngine(env, exports);
  defineTracker(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, initialise)

}  // namespace understudy
