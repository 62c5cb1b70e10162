#include "binding/convert.h"

namespace understudy {

uint64_t toUint(const Napi::Value& value, const char* what) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  constexpr double kLimit = 9007199254740992.0;  // 2^53
  const bool is_whole = number >= 0 && number < kLimit &&
                        number == static_cast<double>(static_cast<uint64_t>(number));
  if (!is_whole) {
    throw Napi::TypeError::New(value.Env(), std::string(what) + " must be a whole number");
  }
  return static_cast<uint64_t>(number);
}

// Straight through the C interface: the C++ wrapper refuses arrays over a SharedArrayBuffer.
Memory toMemory(const Napi::Value& value, const char* what) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  const napi_status status = napi_get_typedarray_info(value.Env(), value, &type, &length, &data,
                                                      nullptr, nullptr);
  if (status != napi_ok || type != napi_uint8_array) {
    throw Napi::TypeError::New(value.Env(), std::string(what) + " must be a Uint8Array");
  }
  return Memory{static_cast<uint8_t*>(data), length};
}

std::vector<Extent> toExtents(const Napi::Value& value) {
  if (!value.IsTypedArray() ||
      value.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw Napi::TypeError::New(value.Env(), "extents must be a Float64Array");
  }
  const Napi::Float64Array array = value.As<Napi::Float64Array>();
  std::vector<Extent> extents(array.ElementLength() / 2);
  for (size_t i = 0; i < extents.size(); i++) {
    extents[i] = Extent{static_cast<uint64_t>(array[2 * i]),
                        static_cast<uint64_t>(array[2 * i + 1])};
  }
  return extents;
}

Napi::Error toError(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.what());
  error.Set("code", failure.code);
  error.Set("syscall", failure.syscall);
  if (failure.error != 0) error.Set("errno", errnoName(failure.error));
  if (!failure.path.empty()) error.Set("path", failure.path);
  if (failure.offset >= 0) error.Set("offset", static_cast<double>(failure.offset));
  return error;
}

}  // namespace understudy
