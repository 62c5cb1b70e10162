// A volume as a file descriptor: opening (O_DIRECT, because a buffered read of a block device may
// return a stale page), geometry from ioctls and sysfs, positioned reads, SEEK_DATA. Regular files
// are volumes too; where their file system refuses O_DIRECT they are read through the page cache,
// which is coherent for files. Read-only by construction (P5). Which volumes may be tracked is
// decided in TypeScript.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace understudy {

enum class DeviceKind { Disk, Partition, File };

struct Geometry {
  uint64_t size_bytes = 0;
  uint32_t sector_bytes = 512;
  DeviceKind kind = DeviceKind::File;
  uint32_t disk_major = 0;
  uint32_t disk_minor = 0;
  uint64_t start_bytes = 0;
  uint64_t disk_sequence = 0;
};

class Device {
 public:
  // Throws Failure ERR_DEVICE_OPEN or ERR_DEVICE_NOT_VOLUME (a directory, a character device, ...).
  explicit Device(const std::string& path);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int fd() const { return fd_; }
  bool isFile() const { return geometry_.kind == DeviceKind::File; }
  const std::string& path() const { return path_; }
  const Geometry& geometry() const { return geometry_; }

  // Reads until `length` bytes or the end of the volume. The buffer has room for `capacity` bytes:
  // the tail of a file is read by a whole block. Throws ERR_DEVICE_READ.
  size_t read(uint8_t* buffer, size_t length, size_t capacity, uint64_t offset) const;
  // First data extent at or after `offset`; nothing when only a hole is left. Throws
  // ERR_DEVICE_READ.
  std::optional<std::pair<uint64_t, uint64_t>> nextData(uint64_t offset) const;
  // Size now. Throws ERR_DEVICE_GONE.
  uint64_t currentSize() const;
  // The kernel's sequence number of the disk now; 0 where the kernel has none, or for a file.
  uint64_t currentSequence() const;
  // Safe to call twice.
  void close();

 private:
  void readBlockGeometry(uint64_t device_number);
  // Some file systems take O_DIRECT when opening and refuse it when reading. True if that was it.
  bool stopsDirectReads() const;

  std::string path_;
  int fd_ = -1;
  Geometry geometry_;
};

// Text of a small sysfs or proc file without its newline; empty when it cannot be read.
std::string readSmallFile(const std::string& path);

}  // namespace understudy
