#include "worker/object_cache.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>

#include "runtime/base/config.h"
#include "runtime/base/logging.h"
#include "runtime/base/named_thread.h"

namespace lepton::worker {

ObjectCache::ObjectCache(storage::ObjectStore* store, Options options)
    : store_(store), options_(options) {
  if (options_.limit_bytes > 0) thread_ = NamedThread("object-cache", [this] { Run(); });
}

ObjectCache::~ObjectCache() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

ObjectCache::Hold ObjectCache::Keep(const std::vector<storage::Digest>& digests) {
  {
    std::lock_guard lock(mutex_);
    for (const storage::Digest& digest : digests) ++held_[digest];
  }
  for (const storage::Digest& digest : digests) (void)store_->Touch(digest);
  return Hold(nullptr, [this, digests](void*) {
    std::lock_guard lock(mutex_);
    for (const storage::Digest& digest : digests) {
      if (const auto held = held_.find(digest); --held->second == 0) held_.erase(held);
    }
  });
}

void ObjectCache::Look() {
  {
    std::lock_guard lock(mutex_);
    look_ = true;
  }
  changed_.notify_all();
}

void ObjectCache::Run() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait_for(lock, options_.interval, [this] { return stopping_ || look_; });
    if (stopping_) return;
    look_ = false;
    lock.unlock();
    Trim();
    lock.lock();
  }
}

std::map<storage::Digest, int> ObjectCache::Held() {
  std::lock_guard lock(mutex_);
  return held_;
}

uint64_t ObjectCache::Trim() {
  const auto since = storage::ObjectStore::Time::clock::now() -
                     std::chrono::duration_cast<std::chrono::system_clock::duration>(options_.idle);
  const std::map<storage::Digest, int> held = Held();
  for (const auto& [digest, holds] : held) (void)store_->Touch(digest);
  auto objects = store_->List();
  if (!objects.ok()) {
    LOG_EVERY_N(WARNING, 100) << "object cache: " << objects.status().ToString();
    return 0;
  }
  uint64_t total = 0, gone = 0;
  for (const auto& object : *objects) total += object.bytes;
  if (options_.limit_bytes == 0 || total <= options_.limit_bytes) return 0;
  // Down to seven eighths, so that it is rare.
  const uint64_t target = options_.limit_bytes / 8 * 7;
  std::sort(objects->begin(), objects->end(),
            [](const auto& a, const auto& b) { return a.used < b.used; });
  for (const auto& object : *objects) {
    if (total - gone <= target || object.used > since) break;
    if (held.contains(object.digest)) continue;
    const Result<bool> removed = store_->RemoveUnused(object.digest, since);
    if (removed.ok() && *removed) gone += object.bytes;
  }
  if (gone > 0) {
    LOG(INFO) << "object cache: " << gone << " of " << total << " bytes went";
  } else {
    LOG_EVERY_N(WARNING, 20) << "object cache: " << total << " bytes are in use, the limit is "
                             << FormatBytes(options_.limit_bytes);
  }
  return gone;
}

}  // namespace lepton::worker
