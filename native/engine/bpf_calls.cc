#include "engine/bpf_calls.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/failure.h"

namespace understudy {

namespace {

int callBpf(int command, bpf_attr& attributes) {
  return static_cast<int>(syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
}

template <typename Info>
void getInfo(const Handle& handle, Info& info) {
  bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.info.bpf_fd = static_cast<uint32_t>(handle.get());
  attributes.info.info_len = sizeof(info);
  attributes.info.info = reinterpret_cast<uint64_t>(&info);
  if (callBpf(BPF_OBJ_GET_INFO_BY_FD, attributes) != 0) {
    throw Failure("ERR_TRACKER_PIN", "BPF_OBJ_GET_INFO_BY_FD", errno);
  }
}

}  // namespace

Handle& Handle::operator=(Handle&& other) noexcept {
  if (fd_ >= 0) close(fd_);
  fd_ = other.fd_;
  other.fd_ = -1;
  return *this;
}

Handle::~Handle() {
  if (fd_ >= 0) close(fd_);
}

Handle openPin(const std::string& path) {
  bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.pathname = reinterpret_cast<uint64_t>(path.c_str());
  const int fd = callBpf(BPF_OBJ_GET, attributes);
  if (fd < 0) throw Failure("ERR_TRACKER_PIN", "BPF_OBJ_GET", errno, path);
  return Handle(fd);
}

MapInfo mapInfo(const Handle& map) {
  bpf_map_info info;
  memset(&info, 0, sizeof(info));
  getInfo(map, info);
  return MapInfo{info.id, info.value_size, info.max_entries};
}

uint32_t linkProgram(const Handle& link) {
  bpf_link_info info;
  memset(&info, 0, sizeof(info));
  getInfo(link, info);
  return info.prog_id;
}

Handle openProgram(uint32_t id) {
  bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.prog_id = id;
  const int fd = callBpf(BPF_PROG_GET_FD_BY_ID, attributes);
  if (fd < 0) throw Failure("ERR_TRACKER_PIN", "BPF_PROG_GET_FD_BY_ID", errno);
  return Handle(fd);
}

ProgramInfo programInfo(const Handle& program) {
  bpf_prog_info info;
  memset(&info, 0, sizeof(info));
  uint32_t map_ids[16] = {0};
  info.nr_map_ids = sizeof(map_ids) / sizeof(map_ids[0]);
  info.map_ids = reinterpret_cast<uint64_t>(map_ids);
  getInfo(program, info);
  ProgramInfo result{info.recursion_misses, {}};
  for (uint32_t i = 0; i < info.nr_map_ids && i < 16; i++) result.map_ids.push_back(map_ids[i]);
  return result;
}

}  // namespace understudy
