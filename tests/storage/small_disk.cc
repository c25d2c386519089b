#include "tests/storage/small_disk.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lepton {

std::unique_ptr<SmallDisk> SmallDisk::Mount(size_t bytes, std::string* why) {
  std::unique_ptr<SmallDisk> disk(new SmallDisk);
  const std::string options = "size=" + std::to_string(bytes);
  if (::mount("tmpfs", disk->path().c_str(), "tmpfs", 0, options.c_str()) != 0) {
    *why = std::string("cannot mount a tmpfs here: ") + std::strerror(errno);
    return nullptr;
  }
  disk->mounted_ = true;
  return disk;
}

SmallDisk::~SmallDisk() {
  if (mounted_) ::umount2(path().c_str(), MNT_DETACH);
}

void SmallDisk::FillUp() {
  UniqueFd fd(::open((path() / "ballast").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
  const std::string block(4096, 'x');
  while (::write(fd.get(), block.data(), block.size()) > 0) {
  }
}

void SmallDisk::MakeRoom() {
  ::unlink((path() / "ballast").c_str());
}

bool SmallDisk::SetReadOnly(bool read_only) {
  return ::mount("tmpfs", path().c_str(), "tmpfs", MS_REMOUNT | (read_only ? MS_RDONLY : 0),
                 nullptr) == 0;
}

}  // namespace lepton
