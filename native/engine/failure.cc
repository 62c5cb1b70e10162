#include "engine/failure.h"

#include <cstring>
#include <utility>

namespace understudy {

std::string errnoName(int error) {
  const char* name = strerrorname_np(error);
  return name ? name : "E" + std::to_string(error);
}

Failure::Failure(std::string code, std::string syscall, int error, std::string path, int64_t offset)
    : code(std::move(code)),
      syscall(std::move(syscall)),
      error(error),
      path(std::move(path)),
      offset(offset) {
  message_ = this->syscall;
  if (!this->path.empty()) message_ += " " + this->path;
  if (offset >= 0) message_ += " at " + std::to_string(offset);
  if (error != 0) message_ += ": " + std::string(strerror(error));
}

}  // namespace understudy
