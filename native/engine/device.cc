#include "engine/device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "engine/failure.h"

#ifndef BLKGETDISKSEQ  // Linux 5.15
#define BLKGETDISKSEQ _IOR(0x12, 128, __u64)
#endif

namespace understudy {

namespace {

constexpr size_t kFileUnitBytes = 4096;  // what O_DIRECT asks for on any file system
constexpr uint64_t kSectorBytes = 512;  // sysfs counts in these, whatever the logical sector

std::string resolve(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  if (!real) return {};
  std::string result(real);
  free(real);
  return result;
}

int openForReading(const std::string& path, bool is_file) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0 && errno == EINVAL && is_file) fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  return fd;
}

}  // namespace

std::string readSmallFile(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Device::Device(const std::string& path) : path_(path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) throw Failure("ERR_DEVICE_OPEN", "stat", errno, path);
  const bool is_block = S_ISBLK(info.st_mode);
  if (!is_block && !S_ISREG(info.st_mode)) {
    throw Failure("ERR_DEVICE_NOT_VOLUME", "stat", S_ISDIR(info.st_mode) ? EISDIR : ENOTBLK, path);
  }
  fd_ = openForReading(path, !is_block);
  if (fd_ < 0) throw Failure("ERR_DEVICE_OPEN", "open", errno, path);
  try {
    geometry_.size_bytes = currentSize();
    if (is_block) readBlockGeometry(info.st_rdev);
  } catch (...) {
    close();
    throw;
  }
}

Device::~Device() { close(); }

void Device::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void Device::readBlockGeometry(uint64_t device_number) {
  int sector = 0;
  if (ioctl(fd_, BLKSSZGET, &sector) != 0) {
    throw Failure("ERR_DEVICE_OPEN", "BLKSSZGET", errno, path_);
  }
  geometry_.sector_bytes = static_cast<uint32_t>(sector);
  const std::string node = resolve("/sys/dev/block/" + std::to_string(major(device_number)) + ":" +
                                   std::to_string(minor(device_number)));
  if (node.empty()) throw Failure("ERR_DEVICE_OPEN", "sysfs", errno, path_);
  const bool is_partition = !readSmallFile(node + "/partition").empty();
  geometry_.kind = is_partition ? DeviceKind::Partition : DeviceKind::Disk;
  const std::string disk = is_partition ? node.substr(0, node.rfind('/')) : node;
  const std::string number = readSmallFile(disk + "/dev");
  geometry_.disk_major = static_cast<uint32_t>(atoi(number.c_str()));
  const size_t colon = number.find(':');
  if (colon == std::string::npos) throw Failure("ERR_DEVICE_OPEN", "sysfs", ENODEV, path_);
  geometry_.disk_minor = static_cast<uint32_t>(atoi(number.c_str() + colon + 1));
  if (is_partition) {
    const std::string start = readSmallFile(node + "/start");
    geometry_.start_bytes = strtoull(start.c_str(), nullptr, 10) * kSectorBytes;
  }
  geometry_.disk_sequence = currentSequence();
}

uint64_t Device::currentSequence() const {
  __u64 sequence = 0;
  if (ioctl(fd_, BLKGETDISKSEQ, &sequence) != 0) return 0;
  return sequence;
}

uint64_t Device::currentSize() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) throw Failure("ERR_DEVICE_GONE", "fstat", errno, path_);
  if (!S_ISBLK(info.st_mode)) return static_cast<uint64_t>(info.st_size);
  __u64 size = 0;
  if (ioctl(fd_, BLKGETSIZE64, &size) != 0) {
    throw Failure("ERR_DEVICE_GONE", "BLKGETSIZE64", errno, path_);
  }
  return size;
}

size_t Device::read(uint8_t* buffer, size_t length, size_t capacity, uint64_t offset) const {
  const size_t unit = isFile() ? kFileUnitBytes : geometry_.sector_bytes;
  size_t done = 0;
  while (done < length) {
    size_t want = length - done;
    // O_DIRECT wants whole units; only the end of a file can be anything else.
    if (isFile()) want = std::min((want + unit - 1) / unit * unit, capacity - done);
    const ssize_t count = pread(fd_, buffer + done, want, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EINVAL && stopsDirectReads()) continue;
    if (count < 0) throw Failure("ERR_DEVICE_READ", "pread", errno, path_, offset + done);
    if (count == 0) break;
    done += static_cast<size_t>(count);
    if (static_cast<size_t>(count) % unit != 0) break;
  }
  return std::min(done, length);
}

bool Device::stopsDirectReads() const {
  if (!isFile()) return false;
  const int flags = fcntl(fd_, F_GETFL);
  return flags >= 0 && (flags & O_DIRECT) && fcntl(fd_, F_SETFL, flags & ~O_DIRECT) == 0;
}

std::optional<std::pair<uint64_t, uint64_t>> Device::nextData(uint64_t offset) const {
  const uint64_t size = currentSize();
  if (offset >= size) return std::nullopt;
  if (!isFile()) return std::make_pair(offset, size);
  const off_t data = lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return std::nullopt;
  if (data < 0 && errno == EINVAL) return std::make_pair(offset, size);
  if (data < 0) throw Failure("ERR_DEVICE_READ", "lseek", errno, path_, offset);
  const off_t hole = lseek(fd_, data, SEEK_HOLE);
  if (hole < 0) throw Failure("ERR_DEVICE_READ", "lseek", errno, path_, data);
  return std::make_pair(static_cast<uint64_t>(data), static_cast<uint64_t>(hole));
}

}  // namespace understudy
