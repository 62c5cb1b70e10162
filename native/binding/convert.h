// Between JavaScript values and the engine's: numbers that are offsets, typed arrays over shared
// memory, Failures as error objects. The binding folder alone sees napi.h.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/buffer_pool.h"
#include "engine/engine.h"
#include "engine/failure.h"

namespace understudy {

// A whole number in [0, 2^53). Throws a JavaScript TypeError naming `what`.
uint64_t toUint(const Napi::Value& value, const char* what);
// The memory of a Uint8Array (over an ArrayBuffer or a SharedArrayBuffer).
Memory toMemory(const Napi::Value& value, const char* what);
// Float64Array [offset, length, offset, length, ...].
std::vector<Extent> toExtents(const Napi::Value& value);
// An Error with {code, syscall, errno, path, offset}; src/native wraps it into an UnderstudyError.
Napi::Error toError(Napi::Env env, const Failure& failure);

// Calls `work` and turns a Failure into a JavaScript exception.
template <typename Work>
auto guarded(Napi::Env env, Work&& work) {
  try {
    return work();
  } catch (const Failure& failure) {
    throw toError(env, failure);
  }
}

}  // namespace understudy
