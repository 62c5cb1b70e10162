// LZ4 from memory that the caller owns into memory that the caller owns, so that the pipeline makes no
// garbage. The state of the compressor is each thread's own: workers call at once.
#include <lz4.h>

#include <cstdint>
#include <memory>

#include "binding/bindings.h"
#include "binding/convert.h"

namespace understudy {

namespace {

constexpr size_t kPrefixBytes = 4;

uint8_t* partOf(const Memory& memory, uint64_t at, uint64_t length, Napi::Env env) {
  if (at > memory.size || length > memory.size - at) {
    throw Napi::RangeError::New(env, "a range outside of its memory");
  }
  return memory.data + at;
}

void* compressorState() {
  thread_local const std::unique_ptr<char[]> state(
      new char[static_cast<size_t>(LZ4_sizeofState())]);
  return state.get();
}

// (source, at, length, target, targetAt, limit): writes the length as u32 (little-endian) and an LZ4
// block. Returns how many bytes that took; 0 where it would be more than `limit`.
Napi::Value compressInto(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint64_t length = toUint(info[2], "length");
  const uint64_t limit = toUint(info[5], "limit");
  if (length == 0 || length > LZ4_MAX_INPUT_SIZE) {
    throw Napi::RangeError::New(env, "length of what is to be compressed");
  }
  const uint8_t* source =
      partOf(toMemory(info[0], "source"), toUint(info[1], "at"), length, env);
  uint8_t* target =
      partOf(toMemory(info[3], "target"), toUint(info[4], "targetAt"), limit, env);
  if (limit <= kPrefixBytes) return Napi::Number::New(env, 0);
  const int packed = LZ4_compress_fast_extState(
      compressorState(), reinterpret_cast<const char*>(source),
      reinterpret_cast<char*>(target + kPrefixBytes), static_cast<int>(length),
      static_cast<int>(limit - kPrefixBytes), 1);
  if (packed <= 0) return Napi::Number::New(env, 0);
  for (size_t i = 0; i < kPrefixBytes; i++) {
    target[i] = static_cast<uint8_t>(length >> (8 * i));
  }
  return Napi::Number::New(env, packed + static_cast<double>(kPrefixBytes));
}

}  // namespace

void defineCompress(Napi::Env env, Napi::Object exports) {
  exports.Set("compressInto", Napi::Function::New(env, compressInto));
}

}  // namespace understudy
