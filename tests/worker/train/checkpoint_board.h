// Where ranks that are threads put their checkpoints: in memory, checked as they become whole.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "worker/train/train_loop.h"

namespace lepton::testing {

class CheckpointBoard {
 public:
  using Done = worker::TrainObserver::CheckpointDone;
  using Slices = worker::TrainObserver::Slices;
  using Tensors = std::map<std::string, std::vector<float>>;

  // Half of the checkpoints are durable at once, the others when somebody waits for them.
  static bool DurableAtOnce(uint64_t step) { return step % 4 < 2; }

  Done AddSlice(uint64_t step, const Slices& slices) { return Ready(step, Keep(slices)); }
  Done AddManifest(uint64_t step, const std::vector<storage::Digest>& slices) {
    std::lock_guard lock(mutex_);
    Tensors tensors;
    std::map<std::string, std::vector<int>> times;
    for (const storage::Digest& digest : slices) {
      for (const Kept& slice : kept_.at(digest)) {
        auto& tensor = tensors[slice.tensor];
        tensor.resize(static_cast<size_t>(slice.size));
        times[slice.tensor].resize(tensor.size());
        std::copy(slice.values.begin(), slice.values.end(), tensor.begin() + slice.begin);
        for (size_t i = 0; i < slice.values.size(); ++i) {
          ++times[slice.tensor][static_cast<size_t>(slice.begin) + i];
        }
      }
    }
    for (const auto& [name, seen] : times) {
      const auto once = std::count(seen.begin(), seen.end(), 1);
      EXPECT_EQ(once, static_cast<std::ptrdiff_t>(seen.size())) << name << " at step " << step;
    }
    const auto [known, added] = whole.emplace(step, tensors);
    EXPECT_TRUE(added || known->second == tensors) << "step " << step << " once more, otherwise";
    most_slices = std::max(most_slices, slices.size());
    return Ready(step, fmt::format("{:064}", step));
  }
  Done AddWhole(uint64_t step, const Slices& slices) { return AddManifest(step, {Keep(slices)}); }

  bool IsManifest(const storage::Digest& digest) {
    std::lock_guard lock(mutex_);
    return !kept_.contains(digest) && whole.contains(std::stoull(digest));
  }
  // Those that the other has too are the same.
  void ExpectAsIn(const CheckpointBoard& other, const std::string& where) const {
    for (const auto& [step, tensors] : whole) {
      const auto its = other.whole.find(step);
      EXPECT_TRUE(its == other.whole.end() || its->second == tensors)
          << "the checkpoint of step " << step << " has other bits: " << where;
    }
  }

  std::map<uint64_t, Tensors> whole;  // by step
  size_t most_slices = 0;

 private:
  struct Kept {
    std::string tensor;
    int64_t begin, size;
    std::vector<float> values;
  };
  storage::Digest Keep(const Slices& slices) {
    std::lock_guard lock(mutex_);
    const storage::Digest digest = fmt::format("{:064}", 1000 + kept_.size());
    for (const storage::CheckpointSlice& slice : slices) {
      kept_[digest].push_back(
          {slice.tensor, slice.begin, slice.size, {slice.values.begin(), slice.values.end()}});
    }
    kept_[digest];
    return digest;
  }
  static Done Ready(uint64_t step, storage::Digest digest) {
    if (!DurableAtOnce(step)) {
      return std::async(std::launch::deferred,
                        [digest]() -> Result<storage::Digest> { return digest; });
    }
    std::promise<Result<storage::Digest>> done;
    done.set_value(std::move(digest));
    return done.get_future();
  }

  std::mutex mutex_;
  std::map<storage::Digest, std::vector<Kept>> kept_;
};

}  // namespace lepton::testing
