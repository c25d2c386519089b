#include "scheduler/loop/object_keeper.h"

#include <glog/logging.h>

#include <filesystem>

namespace lepton::scheduler {

ObjectKeeper::Hold ObjectKeeper::HoldAll() {
  std::lock_guard lock(mutex_);
  return token_;
}

void ObjectKeeper::Forget(const std::vector<std::string>& digests) {
  std::lock_guard lock(mutex_);
  const MonotonicTime due = RealClock().Now() + delay_;
  for (const auto& digest : digests) due_[digest] = due;
}

size_t ObjectKeeper::ForgetStored(const storage::ObjectStore& objects) {
  std::vector<std::string> digests;
  std::error_code error;
  std::filesystem::recursive_directory_iterator it(objects.root() / "objects", error);
  for (; !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (storage::IsDigest(name)) digests.push_back(name);
  }
  if (error) LOG(WARNING) << "looking for unused objects: " << error.message();
  Forget(digests);
  return digests.size();
}

void ObjectKeeper::Touch(const std::string& digest) {
  std::lock_guard lock(mutex_);
  if (const auto found = due_.find(digest); found != due_.end()) {
    found->second = RealClock().Now() + delay_;
  }
}

size_t ObjectKeeper::Collect(const State& state, storage::ObjectStore& objects) {
  // The lock is held throughout: a hold taken meanwhile waits, then finds the object gone or kept.
  std::lock_guard lock(mutex_);
  if (token_.use_count() > 1) return 0;
  const MonotonicTime now = RealClock().Now();
  size_t removed = 0;
  for (auto it = due_.begin(); it != due_.end();) {
    if (it->second > now) {
      ++it;
      continue;
    }
    if (!state.ObjectInUse(it->first)) {
      const Status status = objects.Remove(it->first);
      if (status.ok()) {
        ++removed;
      } else if (status.code() != StatusCode::kNotFound) {
        LOG(WARNING) << "cannot delete object " << it->first << ": " << status.ToString();
      }
    }
    it = due_.erase(it);
  }
  return removed;
}

}  // namespace lepton::scheduler
