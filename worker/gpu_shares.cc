#include "worker/gpu_shares.h"

#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace lepton::worker {
namespace {

constexpr int kMostTasks = 32;  // of a GPU that are told apart

std::vector<std::shared_ptr<const void>> Counters(size_t count) {
  std::vector<std::shared_ptr<const void>> counters(count);
  for (auto& counter : counters) counter = std::make_shared<char>();
  return counters;
}

// A partition's name (MIG) may have slashes.
std::string LockName(const std::string& gpu, int task) {
  std::string name = "gpu-" + gpu + "-" + std::to_string(task);
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

}  // namespace

std::vector<std::string> GpuNames(int count, const char* visible) {
  std::vector<std::string> names;
  std::string_view rest = visible == nullptr ? "" : visible;
  for (int i = 0; i < count; ++i) {
    if (visible == nullptr) {
      names.push_back(std::to_string(i));
      continue;
    }
    const size_t end = rest.find(',');
    std::string_view name = rest.substr(0, end);
    name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
    name = name.substr(0, name.find_last_not_of(' ') + 1);
    if (name.empty()) break;
    names.emplace_back(name);
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return names;
}

std::filesystem::path GpuShares::DefaultFolder() {
  return "/dev/shm/lepton-gpus-" + std::to_string(getuid());
}

GpuShares::GpuShares(std::vector<std::string> gpus, std::filesystem::path folder)
    : gpus_(std::move(gpus)), locks_(std::move(folder)), own_(Counters(gpus_.size())) {}

std::shared_ptr<const GpuShare> GpuShares::Take(const std::string& gang) {
  auto share = std::make_shared<GpuShare>();
  if (gpus_.empty()) return share;
  const std::vector<size_t> candidates = Candidates(gang);
  size_t chosen = ByLocks(candidates, &share->lock);
  if (!share->lock.valid()) chosen = ByOwnCount(candidates);
  share->gpu = gpus_[chosen];
  share->counted = own_[chosen];
  if (!gang.empty()) taken_.push_back({gang, chosen, share});
  return share;
}

std::vector<size_t> GpuShares::Candidates(const std::string& gang) {
  std::erase_if(taken_, [](const Taken& taken) { return taken.share.expired(); });
  std::vector<size_t> all, without;
  for (size_t i = 0; i < gpus_.size(); ++i) {
    all.push_back(i);
    const bool its = std::any_of(taken_.begin(), taken_.end(), [&](const Taken& taken) {
      return taken.gang == gang && taken.gpu == i;
    });
    if (!its) without.push_back(i);
  }
  return without.empty() ? all : without;
}

// Not valid: nothing is known of other workers.
size_t GpuShares::ByLocks(const std::vector<size_t>& candidates, UniqueFd* lock) const {
  size_t chosen = candidates.front();
  if (!locks_.HasFolder()) return chosen;
  const UniqueFd turn = locks_.AwaitTurn();
  if (!turn.valid()) return chosen;
  int fewest = kMostTasks;
  for (const size_t i : candidates) {
    if (fewest == 0) break;
    int held = 0;
    UniqueFd free;
    for (int task = 0; task < kMostTasks; ++task) {
      UniqueFd one = locks_.Try(LockName(gpus_[i], task));
      held += !one.valid();
      if (one.valid() && !free.valid()) free = std::move(one);
    }
    if (held >= fewest || !free.valid()) continue;
    fewest = held;
    chosen = i;
    *lock = std::move(free);
  }
  return chosen;
}

size_t GpuShares::ByOwnCount(const std::vector<size_t>& candidates) const {
  return *std::min_element(candidates.begin(), candidates.end(), [&](size_t a, size_t b) {
    return own_[a].use_count() < own_[b].use_count();
  });
}

}  // namespace lepton::worker
