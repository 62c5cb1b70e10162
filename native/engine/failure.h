// What went wrong in a system call, as an exception: which call, errno, and on what. The binding
// turns it into an UnderstudyError; nothing in C++ retries, logs or decides.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

namespace understudy {

class Failure : public std::exception {
 public:
  // `code` names the entry of the error catalogue (src/base/errors.ts).
  Failure(std::string code, std::string syscall, int error, std::string path = {},
          int64_t offset = -1);
  const char* what() const noexcept override { return message_.c_str(); }

  const std::string code;
  const std::string syscall;
  const int error;
  const std::string path;
  const int64_t offset;

 private:
  std::string message_;
};

// "ENOENT" for 2; "E<number>" for what has no name here.
std::string errnoName(int error);

}  // namespace understudy
