#include "worker/share_locks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

namespace lepton::worker {

ShareLocks::ShareLocks(std::filesystem::path folder) : folder_(std::move(folder)) {}

bool ShareLocks::HasFolder() const {
  if (mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) return false;
  struct stat status;
  return lstat(folder_.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         status.st_uid == getuid();
}

// It takes microseconds.
UniqueFd ShareLocks::AwaitTurn() const {
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    if (UniqueFd turn = Try("turn"); turn.valid()) return turn;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return UniqueFd();
}

UniqueFd ShareLocks::Try(const std::string& name) const {
  const std::string path = folder_ / name;
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid() || flock(file.get(), LOCK_EX | LOCK_NB) != 0) return UniqueFd();
  return file;
}

}  // namespace lepton::worker
