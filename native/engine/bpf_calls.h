// The few bpf(2) calls that a reader of pins needs: open a pin, ask what it is. Loading is the
// loader's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace understudy {

// Owns a file descriptor.
class Handle {
 public:
  Handle() = default;
  explicit Handle(int fd) : fd_(fd) {}
  Handle(Handle&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Handle& operator=(Handle&& other) noexcept;
  ~Handle();
  int get() const { return fd_; }
  bool isOpen() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct MapInfo {
  uint32_t id;
  uint32_t value_size;
  uint32_t max_entries;
};

struct ProgramInfo {
  uint64_t recursion_misses;
  std::vector<uint32_t> map_ids;
};

// Throws Failure ERR_TRACKER_PIN; ENOENT when there is no such pin.
Handle openPin(const std::string& path);
// A volume's or control map's description.
MapInfo mapInfo(const Handle& map);
// Id of the program that a link attaches; 0 when it is detached.
uint32_t linkProgram(const Handle& link);
Handle openProgram(uint32_t id);
ProgramInfo programInfo(const Handle& program);

}  // namespace understudy
