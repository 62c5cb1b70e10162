// The tracker's pins to JavaScript: one agent at a time, and what a header says. Which history may
// be taken over, and attaching, are TypeScript's.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "binding/bindings.h"
#include "binding/convert.h"
#include "engine/volume_map.h"

namespace understudy {

namespace {

std::string hex(Word high, Word low) {
  char text[33];
  snprintf(text, sizeof(text), "%016llx%016llx", static_cast<unsigned long long>(high),
           static_cast<unsigned long long>(low));
  return text;
}

// lockFolder(path): the lock, held until `unlockFolder` or the end of the process. Throws
// ERR_TRACKER_IN_USE.
Napi::Value lockFolder(const Napi::CallbackInfo& info) {
  const std::string path = info[0].ToString();
  return guarded(info.Env(), [&] {
    const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) throw Failure("ERR_TRACKER_PIN", "open", errno, path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      close(fd);
      throw Failure(error == EWOULDBLOCK ? "ERR_TRACKER_IN_USE" : "ERR_TRACKER_PIN", "flock", error,
                    path);
    }
    return Napi::Number::New(info.Env(), fd);
  });
}

void unlockFolder(const Napi::CallbackInfo& info) {
  close(static_cast<int>(toUint(info[0], "lock")));
}

// readHeader(controlFolder, volumeFolder). Throws ERR_TRACKER_PIN, ERR_TRACKER_DAMAGED.
Napi::Value readHeader(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string control_folder = info[0].ToString();
  const std::string folder = info[1].ToString();
  return guarded(env, [&] {
    const ControlMap control(control_folder);
    const VolumeMap map(folder, control);
    const auto number = [&](int index) { return static_cast<double>(map.header(index)); };
    Napi::Object header = Napi::Object::New(env);
    header.Set("generation",
               hex(map.header(HEADER_GENERATION), map.header(HEADER_GENERATION + 1)));
    header.Set("bootId", hex(map.header(HEADER_BOOT), map.header(HEADER_BOOT + 1)));
    header.Set("granularityBytes", map.blockBytes());
    header.Set("startBytes", number(HEADER_START) * 512);
    header.Set("sizeBytes", number(HEADER_SECTORS) * 512);
    header.Set("diskMajor", number(HEADER_DISK_MAJOR));
    header.Set("diskMinor", number(HEADER_DISK_MINOR));
    header.Set("diskSequence", number(HEADER_DISK_SEQUENCE));
    header.Set("committedEpoch", number(HEADER_COMMITTED_EPOCH));
    header.Set("synced", map.header(HEADER_SYNCED) != 0);
    header.Set("taint", number(HEADER_TAINT));
    return header;
  });
}

}  // namespace

void defineTracker(Napi::Env env, Napi::Object exports) {
  exports.Set("lockFolder", Napi::Function::New(env, lockFolder));
  exports.Set("unlockFolder", Napi::Function::New(env, unlockFolder));
  exports.Set("readHeader", Napi::Function::New(env, readHeader));
}

}  // namespace understudy
