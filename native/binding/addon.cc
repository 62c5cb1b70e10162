// The module: classes Device and Engine, the tracker's pins, LZ4, and the address of a buffer, by which
// aligned memory is found.
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

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("bytesToAlignment", Napi::Function::New(env, bytesToAlignment));
  defineCompress(env, exports);
  defineDevice(env, exports);
  defineEngine(env, exports);
  defineTracker(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, initialise)

}  // namespace understudy
