#include "scheduler/loop/object_keeper.h"

#include <glog/logging.h>

#include <algorithm>
#include <filesystem>

namespace lepton::scheduler {

ObjectKeeper::Hold ObjectKeeper::HoldAll() {
  std::lock_guard lock(mutex_);
  return token_;
}

void ObjectKeeper::Forget(const std::vector<std::string>& digests) {
  Add(digests, /*claimed=*/false);
}

void ObjectKeeper::Add(const std::vector<std::string>& digests, bool claimed) {
  std::lock_guard lock(mutex_);
  const MonotonicTime now = RealClock().Now();
  for (const auto& digest : digests) {
    const auto claim = claims_.find(digest);
    const bool kept = claimed || (claim != claims_.end() && claim->second > now);
    forgotten_[digest] = {now, now + limits_.delay, kept, std::nullopt};
  }
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
  Add(digests, /*claimed=*/true);  // by whom an earlier process told of them
  return digests.size();
}

void ObjectKeeper::Touch(const std::string& digest) {
  std::lock_guard lock(mutex_);
  const MonotonicTime end = RealClock().Now() + limits_.delay;
  claims_[digest] = end;
  if (const auto found = forgotten_.find(digest); found != forgotten_.end()) {
    found->second.due = end;
    found->second.claimed = true;
  }
}

size_t ObjectKeeper::Collect(const State& state, storage::ObjectStore& objects) {
  // The lock is held throughout: a hold taken meanwhile waits, then finds the object gone or kept.
  std::lock_guard lock(mutex_);
  const MonotonicTime now = RealClock().Now();
  std::erase_if(claims_, [&](const auto& claim) { return claim.second <= now; });
  if (token_.use_count() > 1) return 0;
  HastenOldest(now, objects);
  return CollectDue(now, state, objects);
}

size_t ObjectKeeper::CollectAll(const State& state, storage::ObjectStore& objects) {
  std::lock_guard lock(mutex_);
  return CollectDue(MonotonicTime::max(), state, objects);
}

void ObjectKeeper::HastenOldest(MonotonicTime now, const storage::ObjectStore& objects) {
  uint64_t bytes = 0;
  std::vector<Forgotten*> free;
  for (auto& [digest, entry] : forgotten_) {
    if (entry.claimed) continue;
    if (!entry.bytes) entry.bytes = objects.Size(digest).value_or(0);
    bytes += *entry.bytes;
    if (entry.since + limits_.least_delay <= now) free.push_back(&entry);
  }
  if (bytes <= limits_.most_bytes) return;
  std::sort(free.begin(), free.end(),
            [](const Forgotten* a, const Forgotten* b) { return a->since < b->since; });
  for (Forgotten* entry : free) {
    if (bytes <= limits_.most_bytes) break;
    entry->due = now;
    bytes -= *entry->bytes;
  }
}

size_t ObjectKeeper::CollectDue(MonotonicTime now, const State& state,
                                storage::ObjectStore& objects) {
  size_t removed = 0;
  for (auto it = forgotten_.begin(); it != forgotten_.end();) {
    if (it->second.due > now) {
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
    it = forgotten_.erase(it);
  }
  return removed;
}

}  // namespace lepton::scheduler
